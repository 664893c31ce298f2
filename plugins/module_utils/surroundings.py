"""What every module of the kit sets for itself, whatever the login has set."""

from __future__ import annotations

import os

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SBIN, UMASK


def take_over() -> None:
    """Give this process Debian's umask, a PATH with sbin, English, and no settings of a login's own Python.

    A hardened host has a umask of 027 or 077, and `su` comes without sbin. What apt, dpkg, pip and compilers say is
    read: a German host's full disk would be the release's fault. With a login's PYTHONPATH, pip leaves out what it
    finds there, and the programs, which Supervisor starts, do not.
    """
    os.umask(UMASK)
    os.environ["PATH"] = f"{SBIN}:{os.environ.get('PATH', os.defpath)}"
    os.environ["LC_ALL"] = "C.UTF-8"
    for name in [name for name in os.environ if name == "LANGUAGE" or name.startswith("PYTHON")]:
        del os.environ[name]  # up to Debian 12, LANGUAGE counts beside C.UTF-8


def without_unpack_place() -> dict[str, str]:
    """Return our environment for others: where Ansible unpacks modules, in /run, only root can write."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("TMPDIR", "/run")}
