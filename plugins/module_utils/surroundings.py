"""What every module of ours sets for itself, whatever the login brings along."""

from __future__ import annotations

import os

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def take_over() -> None:
    """Give this process Debian's umask, and a PATH on which runuser and rabbitmqctl are found.

    A hardened host has a umask of 027 or 077, and `su` comes without sbin.
    """
    os.umask(0o022)
    os.environ["PATH"] = f"{SBIN}:{os.environ.get('PATH', os.defpath)}"
