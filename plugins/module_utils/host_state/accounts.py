"""A system user and a system group."""

from __future__ import annotations

import grp
import pwd
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import carry_out

NO_LOGIN = "/usr/sbin/nologin"


def group(name: str, outcome: Outcome) -> None:
    """Make a system group. Raises OperatorError."""
    try:
        grp.getgrnam(name)
    except KeyError:
        outcome.note(f"group {name}", {"group": name, "state": "absent"}, {"group": name, "state": "present"})
        if not outcome.check:
            carry_out("groupadd", "--system", name)


def user(name: str, home: str, outcome: Outcome) -> None:
    """Make a system user that nobody logs in as, with a group of its name; correct its home and shell.

    Nothing is made in or of the home directory. Raises OperatorError.
    """
    wanted = {"home": home, "shell": NO_LOGIN}
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        outcome.note(f"user {name}", {"user": name, "state": "absent"}, {"user": name, "state": "present", **wanted})
        if not outcome.check:
            carry_out(
                "useradd",
                "--system",
                *own_group(name),
                "--home-dir",
                home,
                "--no-create-home",
                "--shell",
                NO_LOGIN,
                name,
            )
        return
    before: dict[str, Any] = {"home": found.pw_dir, "shell": found.pw_shell}
    if before != wanted:
        outcome.note(f"user {name}", {"user": name, **before}, {"user": name, **wanted})
        if not outcome.check:
            carry_out("usermod", "--home", home, "--shell", NO_LOGIN, name)


def own_group(name: str) -> list[str]:
    """The option that says which group a new user is in: one that is there already, or one that comes with it."""
    try:
        grp.getgrnam(name)
    except KeyError:
        return ["--user-group"]
    return ["--gid", name]
