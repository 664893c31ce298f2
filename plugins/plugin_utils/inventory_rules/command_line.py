"""Rules for the variables of a command line: a verb that would not hear what it is told is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import COLLECTION, KIT, spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import types, unknown

ANSIBLES = {"all", "always", "never", "tagged", "untagged"}
"""Tags that every playbook has."""


def refuse_mistakes(given: Mapping[str, Any], tags: Iterable[str] = (), playbooks: Iterable[str] = ()) -> None:
    """Raise AnsibleError that lists what would not be heard.

    That is each variable whose name is nearly one of the kit's, each of another type, and each tag that nothing has.
    """
    plain = {name: value for name, value in given.items() if "{{" not in str(value)}
    found = [mistake.text for mistake in (*unknown(Host("", given)), *types(Host("", plain)))]
    found += without_tags(tags, playbooks)
    if found:
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        raise AnsibleError(spelled("\n".join(["The command line is wrong; nothing was changed on any host.", *lines])))


def without_tags(tags: Iterable[str], playbooks: Iterable[str]) -> Iterator[str]:
    """Yield each tag for which the kit's playbooks that were called would do nothing; of others nothing is known."""
    named = (
        KIT / f"playbooks/{name.rpartition('.')[2]}.yml" if name.startswith(f"{COLLECTION}.") else Path(name)
        for name in playbooks
    )
    paths = [path.resolve() for path in named]
    if any(path.parent != KIT / "playbooks" for path in paths):
        return
    for path in paths:
        known = {tag.strip() for listed in re.findall(r"tags: \[(.*)\]", path.read_text()) for tag in listed.split(",")}
        for tag in sorted({*tags} - known - ANSIBLES):
            names = ", ".join(sorted(known - ANSIBLES))
            write = f"it has {names}" if names else "it has none, leave --tags out"
            yield f"--tags {tag}: nothing in {path.name} has this tag; {write}."
