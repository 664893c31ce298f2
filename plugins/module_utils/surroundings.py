"""What every module of the kit sets for itself, whatever the login has set."""

from __future__ import annotations

import os

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SBIN, UMASK


def take_over() -> None:
    """Give this process Debian's umask, and a PATH on which runuser and rabbitmqctl are found.

    A hardened host has a umask of 027 or 077, and `su` comes without sbin.
    """
    os.umask(UMASK)
    os.environ["PATH"] = f"{SBIN}:{os.environ.get('PATH', os.defpath)}"
