"""Rules for how a verb is called: one that would not hear what it is told, or do a part of its work, is refused."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import COLLECTION, KIT, spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, declared
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import types, unknown

ANSIBLES = {"all", "always", "never", "tagged", "untagged"}
"""Tags that every playbook has."""

OF_PLAYBOOKS = (
    "status_format", "status_output", "status_exit", "status_drift", "rabbitmq_move_from", "rabbitmq_move_confirm",
    "uninstall_services", "uninstall_confirm",
)  # fmt: skip
"""Variables of playbooks that no role has."""
VERBS = ("celery_app_restart", "celery_app_scale", "celery_app_purge", "celery_app_exec", "celery_app_maintenance")
"""What a verb is told first; a verb that is told nothing else may mean everything."""


def refuse_mistakes(given: Mapping[str, Any], line: Mapping[str, Any], strategy: str = "linear") -> None:
    """Raise AnsibleError that lists what is wrong with a call: its variables, the options of its line, the strategy.

    That is each variable whose name is nearly one of the kit's, each of another type, and each tag that nothing has.
    """
    # Of a template and of what is in a vault the inventory's check tells.
    later = {name for name, value in given.items() if isinstance(value, EncryptedString) or "{{" in str(value)}
    plain = {name: value for name, value in given.items() if name not in later}
    found = [mistake.text for mistake in (*unknown(Host("", given)), *types(Host("", plain)))]
    playbooks = list(line.get("args") or ())
    found += [text for name in given for text in nearly_a_verbs(name)]
    found += without_variable(given)
    found += without_tags("tags", line.get("tags") or (), playbooks)
    found += without_tags("skip-tags", line.get("skip_tags") or (), playbooks)
    found += without_order(line.get("start_at_task") or "", strategy)
    if found:
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        raise AnsibleError(spelled("\n".join(["The command line is wrong; nothing was changed on any host.", *lines])))


def nearly_a_verbs(name: str) -> Iterator[str]:
    """Yield what is wrong with a name that is nearly one which only a verb has, or is longer than one of these."""
    if name in OF_PLAYBOOKS or name in declared():
        return
    near = [verb for verb in VERBS if name.startswith(f"{verb}_")]
    near += difflib.get_close_matches(name, OF_PLAYBOOKS, 1, 0.85)
    if near:
        yield f"{name}: there is no variable of that name; did you mean {near[0]}? Write: -e {near[0]}=..."


def without_variable(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of `-e` that are in no value: Ansible ends a value at a space, and says nothing of the rest."""
    if words := given.get("_raw_params"):
        yield (
            f"-e: {str(words)!r} stands alone, as a value ends at a space. Put quotes around the value, inside "
            "those of the shell: -e \"celery_app_exec='manage.py check'\""
        )


def without_order(start: str, strategy: str) -> Iterator[str]:
    """Yield what would keep tasks from coming one after the other on all hosts, which the kit's playbooks live on."""
    if start:
        yield (
            f"--start-at-task {shlex.quote(start)} leaves out all that comes before it: the checks, the lock, and what "
            "later tasks read. Leave it out: what is right already is not touched."
        )
    if strategy.endswith(("free", "host_pinned")):
        yield (
            f"strategy is {strategy} (in ansible.cfg, or ANSIBLE_STRATEGY): hosts would not wait for each other, and "
            "each would do what must be done once. Type before the command: ANSIBLE_STRATEGY=linear"
        )


def without_tags(option: str, tags: Iterable[str], playbooks: Iterable[str]) -> Iterator[str]:
    """Yield each tag that nothing in the kit's playbooks that were called has; of others nothing is known.

    To skip what is always done is to skip the checks.
    """
    named = (
        KIT / f"playbooks/{name.rpartition('.')[2]}.yml" if name.startswith(f"{COLLECTION}.") else Path(name)
        for name in playbooks
    )
    paths = [path.resolve() for path in named]
    if any(path.parent != KIT / "playbooks" for path in paths):
        return
    for path in paths:
        is_skip = option == "skip-tags"
        known = {tag for part in (parts_of(path) if is_skip else [path]) for tag in tags_in(part)}
        for tag in sorted({*tags} - (known - ANSIBLES if is_skip else known | ANSIBLES)):
            names = ", ".join(sorted(known - ANSIBLES))
            write = f"it has {names}" if names else f"it has none, leave --{option} out"
            yield f"--{option} {tag}: nothing in {path.name} has this tag{' to skip' * is_skip}; {write}."


def tags_in(playbook: Path) -> Iterator[str]:
    """Yield the tags in a playbook."""
    for listed in re.findall(r"tags: \[(.*)\]", playbook.read_text()):
        yield from (tag.strip() for tag in listed.split(","))


def parts_of(playbook: Path) -> Iterator[Path]:
    """Yield a playbook and those that it imports."""
    yield playbook
    for name in re.findall(r"import_playbook: (\S+)", playbook.read_text()):
        yield from parts_of(playbook.with_name(name))
