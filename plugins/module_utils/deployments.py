"""The deployments of an application on one host: what went live together, and the audit log of what was tried.

A deployment is a release, an environment file and the programs that run with them. Its record, a JSON file, is written
when it goes live and never changed: it names the deployment before it, and that chain is the way of a rollback. To go
back is to move the link `current`, which works on a full disk too. While a deploy or rollback is under way there is a
draft beside the records; one that is left over tells of a run that was interrupted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.files import point, read_json, text_of, write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    ADOPTED,
    BEAT_SCHEDULE,
    LEASED,
    READY_TIMEOUT,
    RUNUSER,
    SECRET_DIRECTORY,
    SECRET_FILE,
    Layout,
    program_of,
)

Record = dict[str, Any]
"""id, previous, release, environment (a file's name), programs (a list), who, at, action, commit, perhaps renews."""

COMMAND = re.compile(r"^command=(.*)$", re.MULTILINE)
SCHEDULE = re.compile(rf"{BEAT_SCHEDULE}[\d.]+")
OWNER = re.compile(r"^# owner: celery-ops (\S+)$", re.MULTILINE)


class Deployments:
    """Records, draft and audit log of one application."""

    def __init__(self, app: str, base: Path | None = None) -> None:
        self.app = app
        self.base = base or Layout(app).base
        self.directory = self.base / "deployments"
        self.audit = Layout(app).audit_log
        self._draft = self.directory / "draft.json"
        self._current = self.directory / "current"

    def read(self, deployment: str) -> Record:
        """Return a record; empty when there is none of that id."""
        return read_json(self.directory / f"{deployment}.json") if deployment else {}

    def current_id(self) -> str:
        """Return the id of the deployment that is live; empty when none is."""
        return self._current.readlink().stem if self._current.is_symlink() else ""

    def current(self) -> Record:
        """Return the record of the deployment that is live; empty when there is none."""
        return self.read(self.current_id())

    def all(self) -> dict[str, Record]:
        """Return all records by id."""
        found = {path.stem: read_json(path) for path in sorted(self.directory.glob("*.json")) if path != self._draft}
        return {name: record for name, record in found.items() if record}

    def draft(self) -> Record:
        """Return what is under way, or was interrupted; empty when nothing is."""
        return read_json(self._draft)

    def begin(self, draft: Record) -> str:
        """Note what is under way. A draft of another run was interrupted: that goes into the audit log; return it."""
        old, interrupted = self.draft(), ""
        if old and old.get("id") != draft["id"]:
            if not old.get("failed"):
                outcome = f"interrupted in phase {old.get('phase')}"
                self.append({**old, "deployment": old["id"], "to": old.get("release", ""), "outcome": outcome})
                interrupted = f"the {old.get('action')} of {old.get('who')} before it was {outcome}"
            # What it handed over may still run, whether or not this run touches it.
            old = {"begun": old["begun"]} if old.get("begun") else {}
        self.directory.mkdir(mode=SECRET_DIRECTORY, exist_ok=True)
        write_json(self._draft, {"programs": [], "began": round(time.time(), 3), **draft, **old}, SECRET_FILE)
        return interrupted

    def note_programs(
        self, prefixes: Iterable[str], programs: list[dict[str, Any]], phase: str, is_change: bool
    ) -> None:
        """Note the programs of these prefixes in the draft, and whether something is about to be handed over."""
        draft, prefixes = self.draft(), tuple(prefixes)
        if draft:
            others = [program for program in draft["programs"] if not program["name"].startswith(prefixes)]
            begun = [*draft.get("begun", []), *([phase] if is_change else [])]
            write_json(
                self._draft, {**draft, "programs": [*others, *programs], "begun": begun, "phase": phase}, SECRET_FILE
            )

    def keep_draft(self, reason: str) -> None:
        """Leave the draft of a deploy that failed and is not taken back: a rollback still has to."""
        if draft := self.draft():
            write_json(self._draft, {**draft, "failed": reason}, SECRET_FILE)

    def drop_draft(self) -> None:
        """Nothing is under way any more."""
        self._draft.unlink(missing_ok=True)

    def write(self, record: Record) -> None:
        """Write a record that is to be kept."""
        self.directory.mkdir(mode=SECRET_DIRECTORY, exist_ok=True)
        write_json(self.directory / f"{record['id']}.json", record, SECRET_FILE)

    def point(self, deployment: str) -> None:
        """Make a record the current one, in one step and without a byte of disk space."""
        point(self._current, f"{deployment}.json")

    def point_nowhere(self) -> None:
        """No deployment is live any more."""
        self._current.unlink(missing_ok=True)

    def remove(self, deployment: str) -> None:
        """Remove a record."""
        (self.directory / f"{deployment}.json").unlink(missing_ok=True)

    def adopt(self, release: str, environment: str, conf_dir: Path) -> None:
        """Make a record of what an older version of the kit has deployed, out of its conf files."""
        if self.current_id() or not release:
            return
        programs = []
        for path in sorted(conf_dir.glob(f"{self.app}-*.conf")):
            with suppress(OSError):
                text = text_of(path)
                if (owner := OWNER.search(text)) and path.stem.startswith(owner[1]) and owner[1].startswith(self.app):
                    program = program_of(path.stem)
                    # All but workers hold something that two can't have: a pidfile or a socket.
                    strategy = "overlap" if "-worker-" in program else "replace"
                    ready = ready_of(self.app, path.stem, text) if strategy == "overlap" else []
                    programs.append(
                        {"program": program, "name": path.stem, "conf": text, "strategy": strategy, "ready": ready}
                        | ({"ready_timeout": READY_TIMEOUT} if ready else {})
                    )
        self.write(
            {
                "id": ADOPTED, "previous": "", "release": release, "environment": environment, "programs": programs,
                "who": "", "action": "deploy", "commit": "", "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "live_at": 0.0,
            }
        )  # fmt: skip
        self.point(ADOPTED)

    def prune(self, keep: int) -> None:
        """Remove the records that no rollback needs: all but the current one, `keep` - 1 before it, and newer ones."""
        records, kept, at = self.all(), set(), self.current_id()
        newest_first = sorted(records, key=lambda name: records[name].get("live_at", 0.0), reverse=True)
        kept |= set(newest_first[:keep])
        for _ in range(keep):
            kept.add(at)
            at = records.get(at, {}).get("previous", "")
        for name in set(records) - kept:
            self.remove(name)

    def texts(self) -> str:
        """Return the conf texts of all records: what they name has to stay."""
        records = [*self.all().values(), self.draft()]
        return "".join(program["conf"] for record in records for program in record.get("programs", []))

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line to the audit log."""
        keys = ("who", "action", "deployment", "from", "to", "commit", "changed", "outcome", "seconds")
        line = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **{key: entry.get(key, "") for key in keys}}
        if entry.get("commits"):
            line["commits"] = entry["commits"]
        self.audit.parent.mkdir(exist_ok=True)
        add_line(self.audit, line)

    def last(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the last entries of the audit log, newest first; without what a full disk has left half written."""
        return list(entries(self._lines()[-count:]))

    def last_tried(self) -> dict[str, Any]:
        """Return the entry of the last deploy or rollback, however many other verbs followed; empty for none."""
        tried = (entry for entry in entries(self._lines()) if entry.get("action") in ("deploy", "rollback"))
        return next(tried, {})

    def has_failed(self) -> bool:
        """Whether the last deploy or rollback did not end well."""
        last = self.last_tried()
        return bool(last) and last.get("outcome") != "good"

    def _lines(self) -> list[str]:
        with suppress(OSError):
            return self.audit.read_text().splitlines()
        return []


def entries(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Yield what lines of the audit log say, the last one first; nothing for one that is half written."""
    for line in reversed(lines):
        with suppress(ValueError):
            yield json.loads(line)


def add_line(log: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the audit log, after one that a full disk has left half written as well. Raises OSError."""
    with log.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        before = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(before + json.dumps(entry).encode() + b"\n")


def ready_of(app: str, name: str, conf: str) -> list[str]:
    """Return how a worker that an older version of the kit has set up is asked whether it consumes; empty if unknown.

    Without it a rollback would stop the newer workers while this one still starts.
    """
    command = COMMAND.search(conf)
    words = shlex.split(command[1].replace("%%", "%")) if command else []

    def value(option: str) -> str:
        return words[words.index(option) + 1]

    with suppress(ValueError, IndexError):
        programs = Path(words[0]).parent
        return [
            *(RUNUSER, "-u", app, "--"),
            *(f"{programs}/celery-ops-env", value("--env-file"), "--chdir", value("--chdir"), "--"),
            *(f"{programs}/celery-ops-ready", "-A", value("-A"), "--node", value("-n"), "--queues", value("-Q")),
            *("--canary-file", str(Layout(app).canary(name)), "--timeout", str(READY_TIMEOUT)),
        ]
    return []


def has_lone_scheduler(record: Record) -> bool:
    """Whether its scheduler is one without the lease, beside which no other may run."""
    schedulers = [one for one in record.get("programs", []) if program_of(one["name"]).endswith("-scheduler")]
    return any(LEASED not in one["conf"] for one in schedulers)


def identity(record: Record) -> tuple[str, str, list[str]]:
    """Return what makes two deployments the same: a program's name holds the hash of its settings."""
    names = sorted(program.get("of") or program["name"] for program in record["programs"])
    return record["release"], record["environment"], names


def is_renewal(old: Record, new: Record) -> bool:
    """Whether one deployment is the other over again, as after an upgrade of Debian: all is as it was but the Python.

    Its version makes a program another generation. No rollback leads from one to the other.
    """

    def settings(record: Record) -> tuple[str, str, list[str]]:
        texts = [
            json.dumps([one["conf"], one.get("ready")]).replace(one["name"], program_of(one["name"]))
            for one in record["programs"]
        ]
        return record["release"], record["environment"], sorted(SCHEDULE.sub("", text) for text in texts)

    return bool(old) and settings(old) == settings(new)


def differences(old: Record, new: Record) -> list[str]:
    """Return which parts of a deployment changed: release, environment, programs."""
    if not old:
        return ["release", "environment", "programs"]
    names = [{program_of(program["name"]) for program in record["programs"]} for record in (old, new)]
    same = {"release": old["release"] == new["release"], "environment": old["environment"] == new["environment"]}
    # With another release or environment every program is another generation; only what came or went counts then.
    same["programs"] = names[0] == names[1] if not all(same.values()) else identity(old) == identity(new)
    return [part for part, is_same in same.items() if not is_same]
