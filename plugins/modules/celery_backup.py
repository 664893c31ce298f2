#!/usr/bin/python
"""Ansible module: a host's part of an application's backup, to make and to restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_backup
short_description: A host's part of an application's backup, to make and to restore
description:
  - The action plugin of the same name makes one encrypted file on the control node of the parts of all hosts.
  - A part is a tar archive in a directory of root's, with the definitions of the application's vhost, its keys in
    Redis, the scheduler's state, environment files, deployment records and audit log, whichever the host has.
options:
  app: {description: The application's name., type: str, required: true}
  groups:
    description: Those of the kit's groups that the host is in.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(collected) makes the part; V(read) returns a piece of a file of it; V(removed) removes it.
      - V(received) takes O(source), a file on the host, in its place; V(restored) restores what is in it.
      - V(empty) returns in RV(counts) the queues of the application that have messages.
    choices: [collected, read, removed, received, restored, empty]
    type: str
    default: collected
  broker: {description: "Whether to look at RabbitMQ, of which one node is enough.", type: bool, default: false}
  file: {description: The file to read, choices: [part.tar, messages], type: str, default: part.tar}
  offset: {description: The first byte to read., type: int, default: 0}
  source: {description: A file on the host that is moved., type: path, default: ""}
attributes:
  check_mode: {support: none, description: In check mode the action plugin does not call the module.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_backup:
    app: shop
    groups: [worker]
"""
RETURN = r"""
counts: {description: "How much of each kind is in the part, or was restored.", type: dict, returned: with some states}
queues: {description: The queues whose messages belong into the backup., type: list, elements: str, returned: collected}
running: {description: "Messages that workers hold, which no backup has.", type: int, returned: collected}
data: {description: "A piece of the file, in base64; empty at its end.", type: str, returned: read}
notes: {description: What is worth telling., type: list, elements: str, returned: with some states}
"""

import base64
import io
import json
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_new
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    APP_GROUPS,
    DELAYED,
    HOUSEKEEPING_QUEUES,
    KIT_STATE,
    SECRET_DIRECTORY,
    SECRET_FILE,
    SUPERVISORD_CONF,
    Layout,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, redis_data
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

PIECE = 3 * 2**20
DEFINITIONS = ("queues", "exchanges", "bindings", "policies")
"""Of the application's vhost; users and permissions site.yml makes, with the control node's passwords."""


def directory_of(app: str) -> Path:
    """Return root's directory of a part."""
    return KIT_STATE / "backup" / app


def is_kept(queue: str) -> bool:
    """Whether a queue's messages belong into a backup: the application's tasks, and those that wait for their ETA."""
    return bool(re.fullmatch(DELAYED, queue)) or not re.fullmatch(HOUSEKEEPING_QUEUES, queue)


def definitions_of(app: str, exported: dict[str, Any]) -> dict[str, Any]:
    """Return what of exported definitions is the application's, without what Celery and the kit make for themselves."""

    def is_ours(item: dict[str, Any]) -> bool:
        names = [item[key] for key in ("name", "destination", "source") if key in item]
        return item.get("vhost") == app and all(is_kept(name) for name in names)

    found = {kind: [item for item in exported.get(kind, []) if is_ours(item)] for kind in DEFINITIONS}
    return {"rabbit_version": exported.get("rabbit_version", ""), **found}


def collected(options: dict[str, Any]) -> dict[str, Any]:
    """Make the part."""
    app, groups = options["app"], set(options["groups"])
    directory, layout = directory_of(app), Layout(app)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=SECRET_DIRECTORY, parents=True)
    counts: dict[str, int] = {}
    answer: dict[str, Any] = {"counts": counts, "queues": [], "running": 0, "notes": []}
    write_new(directory / "part.tar", b"", SECRET_FILE)
    with tarfile.open(directory / "part.tar", "w") as tar:

        def add(name: str, lines: list[str]) -> None:
            entry, data = tarfile.TarInfo(name), "".join(f"{line}\n" for line in lines).encode()
            entry.size, entry.mode, entry.mtime = len(data), SECRET_FILE, int(time.time())
            tar.addfile(entry, io.BytesIO(data))

        if APP_GROUPS & groups:
            for kind, paths in (
                ("environment files", layout.etc.glob("env*")),
                ("deployment records", Deployments(app).directory.glob("*")),
                ("scheduler files", layout.state.glob("beat-schedule*")),
                ("audit log", [layout.audit_log]),
            ):
                there = [path for path in sorted(paths) if path.is_symlink() or path.is_file()]
                for path in there:
                    tar.add(path, f"files{path}")
                counts[kind] = len(there)
        if options["broker"]:
            found = definitions_of(app, rabbitmq.exported_definitions())
            add("definitions.json", [json.dumps(found)])
            counts["queues"] = len(found["queues"])
            rows = rabbitmq.rows_of("list_queues", "name", "messages_unacknowledged", vhost=app)
            kept = [row for row in rows if is_kept(row["name"])]
            answer["queues"] = sorted(row["name"] for row in kept)
            answer["running"] = sum(int(row["messages_unacknowledged"] or 0) for row in kept)
        if "result_store" in groups and redis_data.is_primary():
            lines = list(redis_data.dumped(app))
            add("redis", lines)
            counts["keys in Redis"] = len(lines)
    return answer


def read(options: dict[str, Any]) -> dict[str, Any]:
    """Return a piece of a file; the messages are the application's own file, in its home."""
    name = options["file"]
    path = messages_file(options["app"]) if name == "messages" else directory_of(options["app"]) / name
    with path.open("rb") as file:
        file.seek(options["offset"])
        return {"data": base64.b64encode(file.read(PIECE)).decode()}


def messages_file(app: str) -> Path:
    """Return where the application writes the messages, or reads them: a file of its own."""
    return Layout(app).state / ".messages.backup"


def received(options: dict[str, Any]) -> dict[str, Any]:
    """Take a file that was brought to the host."""
    app, source = options["app"], Path(options["source"])
    if options["file"] == "messages":
        target, owner = messages_file(app), app
    else:
        shutil.rmtree(directory_of(app), ignore_errors=True)
        directory_of(app).mkdir(mode=SECRET_DIRECTORY, parents=True)
        target, owner = directory_of(app) / options["file"], "root"
    try:
        write_new(target, source.read_bytes(), SECRET_FILE, owner=owner)
    finally:
        source.unlink(missing_ok=True)
    return {}


def removed(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the part, and the messages."""
    shutil.rmtree(directory_of(options["app"]), ignore_errors=True)
    messages_file(options["app"]).unlink(missing_ok=True)
    return {}


def empty(options: dict[str, Any]) -> dict[str, Any]:
    """Return the queues that have messages; none is what a restore wants."""
    rows = rabbitmq.rows_of("list_queues", "name", "messages_ready", vhost=options["app"])
    return {
        "counts": {
            row["name"]: int(row["messages_ready"]) for row in rows if is_kept(row["name"]) and row["messages_ready"]
        }
    }


def restored(options: dict[str, Any]) -> dict[str, Any]:
    """Restore what is in the part."""
    app, groups, notes = options["app"], set(options["groups"]), []
    directory, counts = directory_of(app), {}
    with tarfile.open(directory / "part.tar") as tar:
        # As root made it, for root; Debian 12's Python takes no argument `filter`.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(directory / "part")
    part = directory / "part"
    if options["broker"] and (part / "definitions.json").exists():
        found = json.loads((part / "definitions.json").read_text())
        found = {kind: found[kind] for kind in DEFINITIONS}
        rabbitmq.import_definitions(found)
        counts["queues"] = len(found["queues"])
    if "result_store" in groups and (part / "redis").exists() and redis_data.is_primary():
        done, there = redis_data.restored(app, (part / "redis").read_text().splitlines())
        counts["keys in Redis"] = done
        if there:
            notes.append(f"{there} keys in Redis were there already, and stay")
    files = part / "files"
    if files.is_dir() and APP_GROUPS & groups:
        counts["scheduler files"] = scheduler_state(app, files, notes)
        aside = KIT_STATE / "restored" / f"{app}-{time.strftime('%Y%m%dT%H%M%S')}"
        aside.parent.mkdir(mode=SECRET_DIRECTORY, parents=True, exist_ok=True)
        shutil.move(files, aside)
        aside.chmod(SECRET_DIRECTORY)
        notes.append(f"environment files, deployment records and audit log that were there are in {aside}, root only")
    return {"counts": counts, "notes": notes}


def scheduler_state(app: str, files: Path, notes: list[str]) -> int:
    """Put the schedule's state in place, with the scheduler stopped; return how many files."""
    layout = Layout(app)
    there = sorted((files / layout.state.relative_to("/")).glob("beat-schedule*"))
    if not there:
        return 0
    supervisord = connect(SUPERVISORD_CONF, 5.0)
    running = [
        one.name for one in supervisord.processes().values() if one.name.startswith(f"{layout.scheduler}-") and one.up
    ]
    for name in running:
        run("supervisorctl", "-c", str(SUPERVISORD_CONF), "stop", name)
    try:
        for path in there:
            write_new(layout.state / path.name, path.read_bytes(), path.stat().st_mode & 0o777, owner=app, group=app)
    finally:
        for name in running:
            rc, out = run("supervisorctl", "-c", str(SUPERVISORD_CONF), "start", name)
            if rc:
                notes.append(f"{name} does not start again: {out.strip()}. Start it: supervisorctl start {name}")
    return len(there)


STATES = {
    "collected": collected, "read": read, "removed": removed, "received": received, "restored": restored,
    "empty": empty,
}  # fmt: skip


def main() -> None:
    """Run the module."""
    take_over()
    os.umask(0o077)
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "groups": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": list(STATES), "default": "collected"},
            "broker": {"type": "bool", "default": False},
            "file": {"type": "str", "choices": ["part.tar", "messages"], "default": "part.tar"},
            "offset": {"type": "int", "default": 0},
            "source": {"type": "path", "default": ""},
        }
    )
    with reported(module):
        answer = STATES[module.params["state"]](module.params)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
