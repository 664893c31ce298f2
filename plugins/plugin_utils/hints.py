"""Commands to type, spelled as the operator called the kit: a playbook's path or full name, the same inventory."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context

COLLECTION = "celery_ops.kit"
KIT = Path(__file__).resolve().parents[2]
WRITTEN = re.compile(r"ansible-playbook playbooks/(\w+)\.yml")
"""How messages are written."""


def spelled(value: Any) -> Any:
    """Return a message, or whatever holds messages, with the commands in it as this operator types them."""
    if isinstance(value, str):
        return WRITTEN.sub(lambda written: command(written[1]), value)
    if isinstance(value, dict):
        return {key: spelled(item) for key, item in value.items()}
    return [spelled(item) for item in value] if isinstance(value, list) else value


def spells_commands(run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Decorate an action plugin's run: what it returns has the commands as this operator types them."""

    @wraps(run)
    def wrapped(*arguments: Any, **options: Any) -> dict[str, Any]:
        return spelled(run(*arguments, **options))

    return wrapped


def command(verb: str) -> str:
    """Return the command that runs a playbook of the kit."""
    return shlex.join([program(), *inventories(), playbook(verb)])


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


def shortest(inventory: str) -> str:
    """Return a path as it is typed from here; a list of hosts stays as it is."""
    return inventory if "," in inventory else min(inventory, os.path.relpath(inventory), key=len)
