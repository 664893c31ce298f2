"""Commands to type, spelled as the operator called the kit: a playbook's path or full name, inventory and options.

Values of ``-e`` are never repeated: they may be secrets, or mean the verb that was called. Nor is ``--limit``: most
commands in messages are for all hosts.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context

COLLECTION = "celery_ops.kit"
KIT = Path(__file__).resolve().parents[2]
WRITTEN = re.compile(r"(?<!/)ansible-playbook playbooks/(\w+)\.yml")
"""How messages are written; a path before it is that of one who called it so, and the command is spelled already."""
OPTIONS = (
    ("remote_user", "--user", C.DEFAULT_REMOTE_USER),
    ("private_key_file", "--private-key", C.DEFAULT_PRIVATE_KEY_FILE),
    ("ask_pass", "--ask-pass", C.DEFAULT_ASK_PASS),
    ("connection_password_file", "--connection-password-file", C.CONNECTION_PASSWORD_FILE),
    ("become_ask_pass", "--ask-become-pass", C.DEFAULT_BECOME_ASK_PASS),
    ("become_password_file", "--become-password-file", C.BECOME_PASSWORD_FILE),
    ("ask_vault_pass", "--ask-vault-password", C.DEFAULT_ASK_VAULT_PASS),
    ("vault_ids", "--vault-id", ()),
    ("vault_password_files", "--vault-password-file", ()),
)
"""What each command of an operator needs: Ansible's name for it, the option, and what it is without one."""


def spelled(value: Any) -> Any:
    """Return a message, or whatever holds messages, with the commands in it as this operator types them."""
    if isinstance(value, str):
        return WRITTEN.sub(lambda written: command(written[1]), value)
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list) else value


def command(verb: str, same_hosts: bool = False) -> str:
    """Return the command that runs a playbook of the kit; with `same_hosts`, on the hosts of this run alone."""
    limit = context.CLIARGS.get("subset") if same_hosts else None
    limited = ["--limit", str(limit)] if limit else []
    return shlex.join([program(), *inventories(), *options(), *limited, playbook(verb)])


def program() -> str:
    """Return ansible-playbook as it was called: make has it in the checkout, and PATH may not."""
    called = Path(sys.argv[0])
    is_by_path = called.name == "ansible-playbook" and len(called.parts) > 1 and not called.is_absolute()
    return str(called) if is_by_path else "ansible-playbook"


def playbook(verb: str) -> str:
    """Return a playbook's full name where the kit is called by it or installed as a collection, else its path."""
    called = next(iter(context.CLIARGS.get("args") or ()), "")
    beside = Path(called).parent / f"{verb}.yml"
    if beside.resolve() == KIT / f"playbooks/{verb}.yml":
        return str(beside)
    is_installed = KIT.parent.parent.name == "ansible_collections"
    return f"{COLLECTION}.{verb}" if is_installed or called.startswith(COLLECTION) else f"playbooks/{verb}.yml"


def inventories() -> list[str]:
    """Return the options that name the inventories; none where they are the configured ones."""
    given = list(context.CLIARGS.get("inventory") or ())
    if given == list(C.DEFAULT_HOST_LIST):
        return []
    return [word for inventory in given for word in ("-i", shortest(inventory))]


def options() -> list[str]:
    """Return the options that log in, open the vault and read files of variables."""
    words = []
    for name, option, unset in OPTIONS:
        given = context.CLIARGS.get(name, unset)
        if given == unset or not given:
            continue
        if given is True:
            words.append(option)
        else:
            several = [given] if isinstance(given, str) else given
            words += [word for one in several for word in (option, shortest(one) if one.startswith("/") else str(one))]
    files = [one.removeprefix("@") for one in context.CLIARGS.get("extra_vars") or () if one.startswith("@")]
    return [*words, *(word for file in files for word in ("-e", f"@{shortest(file)}"))]


def shortest(path: str) -> str:
    """Return a path as it is typed from here; a list of hosts stays as it is."""
    return path if "," in path else min(path, os.path.relpath(path), key=len)
