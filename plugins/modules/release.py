#!/usr/bin/python
"""Build, choose, close and void the releases of one application on one host."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_build import (
    ReleaseError,
    build,
    listener_in_service,
    listener_of,
    point,
    prune_listeners,
    prune_virtualenvs,
    run,
    wheel_of,
)

DOCUMENTATION = r"""
module: release
short_description: Build, choose, close and void the releases of one application on one host
description:
  - A release is an immutable folder C(<base>/releases/<id>) with C(app/), C(venv) and C(release.json), which says
    whether it is V(built), V(good) or V(void). Virtualenvs are shared by content - same lock file, same runtime,
    same Python - so that a change of code alone installs nothing.
options:
  state:
    description:
      - V(built) unpacks, makes the virtualenv, import-checks and, if told how, migrates; nothing that runs is touched.
      - V(migrated) only migrates, for where several hosts have to be built before.
      - V(chosen) answers which release a rollback goes to.
      - V(built) and V(chosen) write the environment file - one of its own for every content, so that what runs keeps
        what it was started with.
      - V(current) points C(current) and the environment's link at the release, marks it good, writes the audit
        log and prunes.
      - V(void) marks a release that failed or was rolled back; it is no rollback target and never counted.
    choices: [built, migrated, chosen, current, void]
    type: str
    default: built
  app: {description: The application's name., type: str, required: true}
  base: {description: The application's folder; C(/srv/<app>) unless told., type: path}
  id: {description: The release., type: str, default: ""}
  archive:
    description: "The packed source, as C(app/), and the runtime's wheel; brought by the action plugin, removed here."
    type: path
  requirements: {description: The lock file inside the source., type: str, default: requirements.txt}
  python: {description: The Python that makes the virtualenv., type: path, default: /usr/bin/python3}
  celery_module: {description: What C(celery -A) gets; it is imported as a check., type: str}
  environment_file: {description: The environment file that goes with the release., type: path}
  environment_text: {description: What it is to hold., type: str}
  install_environment:
    description:
      - Environment of pip, as the JSON text of an object. It is a text, as Ansible masks each value of a secret
        dictionary wherever it occurs, and a V(1) occurs everywhere.
    type: str
  user: {description: The application's user., type: str}
  source: {description: Where the source came from; noted., type: str, default: ""}
  commit: {description: The source's commit; noted., type: str, default: ""}
  listener:
    description: The version of the web's listener in the runtime, for check mode, where the release is not there yet.
    type: str
    default: ""
  migrate:
    description: The words of the command that migrates; not run for the release that is current.
    type: list
    elements: str
    default: []
  seed:
    description: The words of the command that puts the first records in; run where no release was current before.
    type: list
    elements: str
    default: []
  reason: {description: "With state=void, what went wrong; noted.", type: str, default: ""}
  actor: {description: Who runs this; noted in the audit log., type: str, default: ""}
  action: {description: The verb for the audit log., type: str, default: deploy}
  seconds: {description: What the phases took; noted in the audit log., type: dict, default: {}}
  keep: {description: Good releases to keep., type: int, default: 5}
author: The celery-ops authors
"""
EXAMPLES = r"""
- release:
    app: shop
    id: 1f2e3d4c5b6a
    state: current
"""
RETURN = r"""
id: {description: The release., type: str, returned: success}
previous: {description: The release that C(current) pointed at before., type: str, returned: success}
python: {description: "The version of its Python, such as C(3.11).", type: str, returned: "state=built, chosen"}
watch: {description: Whether its runtime has the watch (since 0.2)., type: bool, returned: state=chosen}
listener: {description: The folder that the web's listener runs from., type: str, returned: "state=built, chosen"}
needs_archive:
  description: Whether the archive is needed, to build what is damaged; nothing was done as yet.
  type: bool
  returned: state=built
release_fault:
  description: Whether the release itself is to blame, by what it holds or did.
  type: bool
  returned: failure
half_way: {description: Whether a deploy had stopped half-way on this host., type: bool, returned: state=chosen}
seconds: {description: What it took., type: float, returned: success}
pruned: {description: Releases that were removed., type: list, returned: state=current}
"""

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["built", "migrated", "chosen", "current", "void"], "default": "built"},
    "app": {"type": "str", "required": True},
    "base": {"type": "path"},
    "id": {"type": "str", "default": ""},
    "archive": {"type": "path"},
    "requirements": {"type": "str", "default": "requirements.txt"},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "celery_module": {"type": "str"},
    "environment_file": {"type": "path"},
    "environment_text": {"type": "str", "no_log": True},
    "install_environment": {"type": "str", "no_log": True},
    "user": {"type": "str"},
    "source": {"type": "str", "default": ""},
    "commit": {"type": "str", "default": ""},
    "listener": {"type": "str", "default": ""},
    "migrate": {"type": "list", "elements": "str", "default": []},
    "seed": {"type": "list", "elements": "str", "default": []},
    "reason": {"type": "str", "default": ""},
    "actor": {"type": "str", "default": ""},
    "action": {"type": "str", "default": "deploy"},
    "seconds": {"type": "dict", "default": {}},
    "keep": {"type": "int", "default": 5},
}
CONF_D = Path("/etc/supervisor/conf.d")
MIGRATE_TIMEOUT = None  # as long as the data take


class Releases:
    """The releases of one application: folders, notes, links."""

    def __init__(self, app: str, base: Path) -> None:
        self.app, self.base = app, base
        self.folder = base / "releases"
        self.environments = Path("/etc") / app
        self.audit = Path("/var/log") / app / "deploys.log"

    def note(self, release: str) -> dict[str, Any]:
        """What release.json says; empty when there is no such release."""
        path = self.folder / release / "release.json"
        try:
            return json.loads(path.read_text()) if release and path.exists() else {}
        except ValueError:  # what a full or broken disk left
            return {}

    def write_note(self, release: str, **changes: Any) -> None:
        """Change release.json as a whole."""
        path = self.folder / release / "release.json"
        replace_text(path, json.dumps({**self.note(release), **changes}, indent=1) + "\n")

    def all(self) -> dict[str, dict[str, Any]]:
        """Notes of all releases by id."""
        if not self.folder.exists():
            return {}
        names = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        return {name: self.note(name) for name in names if self.note(name)}

    def current(self) -> str:
        """The id `current` points at, or nothing."""
        link = self.base / "current"
        return link.readlink().name if link.is_symlink() else ""

    def good(self) -> list[str]:
        """Good releases, the newest first."""
        notes = {name: note for name, note in self.all().items() if note["status"] == "good"}
        return sorted(notes, key=lambda name: notes[name]["good_at"], reverse=True)

    def in_use(self) -> str:
        """The text of all program files: what they name must stay."""
        return "".join(path.read_text() for path in CONF_D.glob("*.conf")) if CONF_D.exists() else ""


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that nobody ever reads half of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)


def python_of(releases: Releases, options: dict[str, Any], release: str) -> str:
    """Major and minor version of the Python that a release runs with, or would."""
    settings = releases.folder / release / "venv/pyvenv.cfg"
    if settings.exists():
        lines = dict(line.split(" = ", 1) for line in settings.read_text().splitlines() if " = " in line)
        return ".".join(lines["version"].split(".")[:2])
    command = [options["python"], "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return run(command, options["python"], "Set celery_app_python to a Python 3.11 or newer.", {}, 30).strip()


def write_environment(options: dict[str, Any], check_mode: bool) -> bool:
    """Write the environment file, for root and the application only; say whether it was not there."""
    if not options["environment_text"]:
        return False
    path = Path(options["environment_file"])
    if path.exists() and path.read_text() == options["environment_text"]:
        return False
    if not check_mode:
        fresh = path.with_name(f".{path.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_text(options["environment_text"])
        os.chown(fresh, 0, pwd.getpwnam(options["user"]).pw_gid)
        fresh.chmod(0o640)
        fresh.replace(path)
    return True


def migrate(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Run the command that migrates and, where there was no release yet, the one that puts the first records in."""
    current = releases.current()
    commands = [("Migrating", options["migrate"]), ("Seeding", [] if current else options["seed"])]
    commands = [(what, words) for what, words in commands if words and current != options["id"]]
    for what, words in [] if check_mode else commands:
        hint = f"No new program was started. Correct it, then deploy again: {shlex.join(words)}"
        run(words, f"{what} (release {options['id']})", hint, {}, MIGRATE_TIMEOUT, of_release=True)
    return {"changed": bool(commands)}


def choose(releases: Releases, wanted: str) -> dict[str, Any]:
    """Where a rollback goes: the named release, or the good one before the current one."""
    current, notes = releases.current(), releases.all()
    listing = ", ".join(f"{name} ({note['status']})" for name, note in notes.items()) or "none"
    if wanted:
        if wanted not in notes or not (releases.folder / wanted / "venv").exists():
            raise ReleaseError(f"celery_app_release is {wanted}: no such release here. There are: {listing}.")
        return {"changed": False, "id": wanted, "half_way": False}
    # A deploy that failed half-way left programs of its own: back to the release that `current` still names.
    if current and any(name != current and name in releases.in_use() for name in notes):
        return {"changed": False, "id": current, "half_way": True}
    earlier = [name for name in releases.good() if name != current]
    if not earlier:
        raise ReleaseError(f"There is no earlier good release to go back to. There are: {listing}.")
    return {"changed": False, "id": earlier[0], "half_way": False}


def close(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make a release the current one, mark it good, write the audit log, prune."""
    before, wanted = releases.current(), options["id"]
    environment = Path(options["environment_file"])
    link = releases.environments / "env"
    changed = before != wanted or not link.is_symlink() or str(link.readlink()) != environment.name
    if check_mode or not changed:
        return {"changed": changed, "pruned": []}
    point(releases.base / "current", f"releases/{wanted}")
    point(link, environment.name)
    now = round(time.time(), 3)
    releases.write_note(wanted, status="good", reason="", good_at=now)
    if options["action"] == "rollback" and before and before != wanted:
        releases.write_note(before, status="void", reason=f"rolled back by {options['actor']}", void_at=now)
    append_audit(releases, options, before, "good")
    return {"changed": True, "pruned": prune(releases, options["keep"])}


def void(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Mark a release that failed; one that was good before stays good."""
    status = releases.note(options["id"]).get("status", "")
    if status and not check_mode:
        if status == "built":
            releases.write_note(options["id"], status="void", reason=options["reason"], void_at=round(time.time(), 3))
        append_audit(releases, options, releases.current(), "failed: " + options["reason"].splitlines()[0])
    return {"changed": status == "built"}


def append_audit(releases: Releases, options: dict[str, Any], before: str, outcome: str) -> None:
    """One JSON line: who, when, what, from which release to which, how it ended, seconds a phase."""
    releases.audit.parent.mkdir(exist_ok=True)
    entry = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "who": options["actor"], "action": options["action"],
        "from": before, "to": options["id"], "commit": releases.note(options["id"]).get("commit", ""),
        "outcome": outcome, "seconds": options["seconds"],
    }  # fmt: skip
    with releases.audit.open("a") as log:
        log.write(json.dumps(entry) + "\n")


def prune(releases: Releases, keep: int) -> list[str]:
    """Remove what nobody needs: releases, virtualenvs, environment files.

    Kept: `keep` good releases, the current one, the newest that failed, the newest that was rolled back, and
    whatever a program file names.
    """
    notes, used = releases.all(), releases.in_use()
    voids = [name for name in notes if notes[name]["status"] != "good"]
    voids.sort(key=lambda name: notes[name].get("void_at") or notes[name].get("built_at", 0))
    failed = [name for name in voids if "good_at" not in notes[name]]
    rolled_back = [name for name in voids if "good_at" in notes[name]]
    kept = {*releases.good()[:keep], releases.current(), *failed[-1:], *rolled_back[-1:]}
    kept |= {name for name in notes if name in used}
    pruned = [name for name in notes if name not in kept]
    for name in pruned:
        shutil.rmtree(releases.folder / name)
    linked = {(releases.folder / name / "venv").resolve() for name in kept if name}
    prune_virtualenvs(releases.base, linked, used)
    prune_listeners(releases.base, used)
    live = (releases.environments / "env").resolve().name
    for path in releases.environments.glob("env-*"):
        if path.name != live and path.name not in used:
            path.unlink()
    return pruned


def act(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what `state` says. Raises ReleaseError."""
    releases = Releases(options["app"], Path(options["base"] or f"/srv/{options['app']}"))
    previous, state, begun = releases.current(), options["state"], time.monotonic()
    if state in ("built", "chosen"):
        written = write_environment(options, check_mode)
        if state == "built":
            result = build(releases, options, check_mode)
            if result.get("needs_archive"):
                return result
            # In check mode the release may not be there yet.
            wheel = wheel_of(releases.folder / options["id"])
            known = releases.base / "listeners" / options["listener"]
            result["listener"] = str(listener_of(releases.base, wheel) if wheel.exists() else known)
            result["changed"] |= migrate(releases, options, check_mode)["changed"]
        else:
            result = choose(releases, options["id"])
            result["listener"] = listener_in_service(releases.base, CONF_D)
            result["watch"] = (releases.folder / result["id"] / "venv/bin/celery-ops-health").exists()
        result["changed"] |= written
        result["python"] = python_of(releases, options, result.get("id", options["id"]))
    else:
        result = {"migrated": migrate, "current": close, "void": void}[state](releases, options, check_mode)
    return {"id": options["id"], "previous": previous, "seconds": round(time.monotonic() - begun, 2), **result}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        answer = act(module.params, module.check_mode)
    except ReleaseError as error:
        module.fail_json(msg=str(error), release_fault=error.release_fault)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
