"""The verb `dead_letters`: what is asked of an application's dead queue, and whether it may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout


def dead_letters(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is `wrong` with what is asked, and the `words` of its command; in check mode it only lists."""
    what = "list" if variables["ansible_check_mode"] else str(variables["celery_app_dead_letters"])
    wrong = mistake(what, variables)
    return {"wrong": wrong, "words": [] if wrong else words(what, variables)}


def mistake(what: str, variables: Mapping[str, Any]) -> str:
    """Return why this can't be asked; empty where it can."""
    most = str(variables["celery_app_dead_letters_max"])
    if not most.isdecimal():
        return (
            f"celery_app_dead_letters_max is {most!r}: it has to be a whole number, 0 for all. Nothing was changed. "
            "Write: -e celery_app_dead_letters_max=10"
        )
    if what == "discard" and variables["celery_app_dead_letters_confirm"] != "yes":
        return (
            "Discarding is permanent; nothing was discarded. List the messages first (ansible-playbook "
            "playbooks/dead_letters.yml), then repeat the command with -e celery_app_dead_letters_confirm=yes"
        )
    return ""


def words(what: str, variables: Mapping[str, Any]) -> list[str]:
    """Return the command."""

    def given(name: str) -> str:
        return str(variables[f"celery_app_dead_letters_{name}"])

    queue = given("queue")
    return [
        *("celery-ops-dead-letters", what, "-A", str(variables["celery_app_module"])),
        *("--queue", Layout(str(variables["celery_app_name"])).dead_queue),
        *("--task", given("task"), "--id", given("id")),
        *(("--from-queue", queue) if queue else ()),  # which a release of an earlier version does not know
        *("--reason", given("reason"), "--max", given("max"), "--confirm", given("confirm")),
    ]
