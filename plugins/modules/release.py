#!/usr/bin/python
"""Build and activate the releases of one application on one host, and record what was deployed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from ansible.module_utils import host_work
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.deployments import ADOPTED, Deployments, Record, differences, identity
from ansible.module_utils.disk import explain
from ansible.module_utils.host_work import Interrupted
from ansible.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: release
short_description: Build and activate the releases of one application on one host
description:
  - A release is an immutable folder C(<base>/releases/<id>) with C(app/), C(venv) and C(release.json), which says
    whether it is V(built), V(good) or V(failed). Virtualenvs are shared by content - same lock file, same runtime,
    same Python - so that a change of code alone installs nothing.
options:
  state:
    description:
      - V(built) unpacks, makes the virtualenv, import-checks and, if told how, migrates; nothing that runs is touched.
      - V(migrated) only migrates, for where several hosts have to be built before.
      - V(history) returns what a rollback chooses from.
      - V(built) writes the environment file - one of its own for every content, so that what runs keeps what it was
        started with - and notes that O(deployment) is under way.
      - V(active) points C(current) and the environment's link at the release, marks it good, writes the deployment's
        record and the audit log, and prunes.
      - V(failed) records a deploy or rollback that failed, and marks the release if that was its fault.
    choices: [built, migrated, history, active, failed]
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
  reason: {description: "With state=failed, what went wrong.", type: str, default: ""}
  release_fault: {description: "With state=failed, whether it was the release's own fault.", type: bool, default: false}
  taken_back: {description: "With state=failed, whether the deployment before runs again.", type: bool, default: false}
  deployment: {description: The deployment's id., type: str, default: ""}
  previous: {description: The deployment before it; the current one unless told., type: str, default: ""}
  target: {description: The deployment that a rollback goes to., type: str, default: ""}
  actor: {description: Who runs this; noted in the audit log., type: str, default: ""}
  action: {description: The verb for the audit log., type: str, default: deploy}
  seconds: {description: What the phases took; noted in the audit log., type: dict, default: {}}
  keep: {description: Good releases to keep., type: int, default: 5}
  phase: {description: What the work is called in C(status)., type: str, default: ""}
  run: {description: The run of ansible-playbook; set by the action plugin., type: str, default: ""}
  job: {description: The work whose answer is awaited; set by the action plugin., type: str, default: ""}
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
half_way: {description: Whether a deploy had stopped half-way on this host., type: bool, returned: state=chosen}
seconds: {description: What it took., type: float, returned: success}
pruned: {description: Releases that were removed., type: list, returned: state=current}
"""

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["built", "migrated", "history", "active", "failed"], "default": "built"},
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
    "migrate": {"type": "list", "elements": "str", "default": []},
    "seed": {"type": "list", "elements": "str", "default": []},
    "reason": {"type": "str", "default": ""},
    "release_fault": {"type": "bool", "default": False},
    "taken_back": {"type": "bool", "default": False},
    "deployment": {"type": "str", "default": ""},
    "previous": {"type": "str", "default": ""},
    "target": {"type": "str", "default": ""},
    "actor": {"type": "str", "default": ""},
    "action": {"type": "str", "default": "deploy"},
    "seconds": {"type": "dict", "default": {}},
    "keep": {"type": "int", "default": 5},
    **host_work.OPTIONS,
}
PHASES = {"built": "release", "migrated": "migrate", "active": "activate", "failed": "failed"}
CONF_D = Path("/etc/supervisor/conf.d")
IMPORT_CHECK = """
import sys
from celery.app.utils import find_app
app = find_app(sys.argv[1])
app.loader.import_default_modules()
app.finalize()
"""
NICER = 5  # a build lets the tasks that run go first
GRACE = 10.0  # seconds for a command that was told to end
IMPORT_TIMEOUT = 60.0  # seconds
INSTALL_TIMEOUT = 1800.0  # seconds
MIGRATE_TIMEOUT = None  # as long as the data take


class ReleaseError(Exception):
    """What the operator reads when a release could not be built or found."""


class Releases:
    """The releases of one application: folders, notes, links."""

    def __init__(self, app: str, base: Path) -> None:
        self.app, self.base = app, base
        self.folder = base / "releases"
        self.environments = Path("/etc") / app
        self.deployments = Deployments(app, base)

    def note(self, release: str) -> dict[str, Any]:
        """What release.json says; empty when there is no such release."""
        path = self.folder / release / "release.json"
        return json.loads(path.read_text()) if release and path.exists() else {}

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
        return "".join(path.read_text() for path in CONF_D.glob("*.conf") if path.exists()) if CONF_D.exists() else ""


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that nobody ever reads half of it."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(mode)
    fresh.replace(path)


def point(link: Path, target: str) -> bool:
    """Make `link` point at `target` in one step; say whether it did not before."""
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
    return True


def run(command: list[str], what: str, hint: str, environment: dict[str, str], timeout: float | None) -> str:
    """Run a command; ReleaseError with its last lines when it fails."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**without_unpack_place(), **environment},
        process_group=0,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        end_group(process)
        raise ReleaseError(f"{what} did not end within {timeout:.0f} s. {hint}") from expired
    except Interrupted as interrupted:
        end_group(process)
        raise Interrupted(f"{what}: {interrupted}") from None
    if process.returncode:
        tail = "\n".join((out + err).strip().splitlines()[-20:])
        raise ReleaseError(f"{what} failed. {hint}\n{tail}")
    return out


def without_unpack_place() -> dict[str, str]:
    """Our environment for others: /run, where Ansible unpacked this module, is no place for what pip builds."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("TMPDIR", "/run")}


def end_group(leader: subprocess.Popen[str]) -> None:
    """End a command with all that it has started: pip starts others, and runuser is only the parent of its command."""
    deadline = time.monotonic() + GRACE
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
            while number == signal.SIGTERM and time.monotonic() < deadline:
                leader.poll()
                os.killpg(leader.pid, 0)
                time.sleep(0.05)
    leader.wait()


def requirement_lines(app: Path, name: str) -> str:
    """What to install, as a requirements file's text; a pyproject.toml's dependencies are taken from it."""
    path = app / name
    if path.suffix != ".toml":
        return path.read_text()
    project = tomllib.loads(path.read_text()).get("project", {})
    if "dependencies" in project.get("dynamic", []):
        raise ReleaseError(
            f"{name}: its dependencies are dynamic. Lock them into a requirements.txt and name that file."
        )
    return "\n".join(project.get("dependencies", [])) + "\n"


def virtualenv(releases: Releases, app: Path, wheel: Path, options: dict[str, Any]) -> Path:
    """The virtualenv for this lock file, runtime and Python; made if it is not there."""
    environment = {key: str(value) for key, value in json.loads(options["install_environment"] or "{}").items()}
    environment |= {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    lines = requirement_lines(app, options["requirements"])
    python = options["python"]
    version = run([python, "-VV"], f"{python} -VV", "Set celery_app_python to a Python 3.11 or newer.", {}, 30)
    identity = json.dumps([lines, hashlib.sha256(wheel.read_bytes()).hexdigest(), version, os.uname().machine])
    venv = releases.base / "venvs" / hashlib.sha256(identity.encode()).hexdigest()[:12]
    done = venv / ".complete"
    venv.parent.mkdir(exist_ok=True)
    venv.parent.chmod(0o755)
    if done.exists() and is_readable(venv):
        return venv
    shutil.rmtree(venv, ignore_errors=True)
    try:
        run(
            [python, "-m", "venv", str(venv)], "Making the virtualenv",
            "Debian's python3-venv has to be installed: apt-get install python3-venv", {}, 120,
        )  # fmt: skip
        wanted = venv / "requirements.txt"
        wanted.write_text(lines)
        pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--progress-bar", "off"]
        run(
            [*pip, "-r", str(wanted)], f"Installing {options['requirements']}",
            "Fix the file, or reach the index: celery_app_install_environment (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY).",
            environment, INSTALL_TIMEOUT,
        )  # fmt: skip
        if not (venv / "bin/celery").exists():
            raise ReleaseError(f"{options['requirements']} does not bring celery. Add it, at the version you want.")
        run(
            [*pip, "--no-deps", "--no-index", str(wheel)],
            "Installing the kit's runtime",
            "",
            environment,
            120,
        )
    except ReleaseError:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    done.touch()
    return venv


def is_readable(venv: Path) -> bool:
    """Whether the application's user can use a virtualenv: the kit once made them under the login's umask."""
    paths = [venv, venv / "bin", *venv.glob("bin/celery*"), *venv.glob("lib/python*/site-packages/celery_ops")]
    return all(path.stat().st_mode & 0o005 == 0o005 for path in paths)


def import_check(release: Path, options: dict[str, Any]) -> None:
    """Import the application as its own user, with the environment that it will have."""
    venv = release / "venv/bin"
    run(
        [
            "runuser", "-u", options["user"], "--", str(venv / "celery-ops-env"), options["environment_file"],
            "--chdir", str(release / "app"), "--", str(venv / "python"), "-B", "-c",
            IMPORT_CHECK, options["celery_module"],
        ],
        f"Importing {options['celery_module']} (release {release.name})",
        "Nothing that runs was touched. Fix the source and deploy again.", {}, IMPORT_TIMEOUT,
    )  # fmt: skip


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


def install_listener(base: Path, wheel: Path) -> None:
    """Put the runtime's code outside every release as well: from there the web's listener runs across deploys."""
    folder, fresh = base / "listener", base / ".listener.new"
    shutil.rmtree(fresh, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(fresh, [name for name in archive.namelist() if name.startswith("celery_ops/")])
    (fresh / "__main__.py").write_text("from celery_ops.listener import main\n\nmain()\n")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def build(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Unpack and build a release that is not there yet; a void one is checked anew."""
    release = releases.folder / options["id"]
    status = releases.note(options["id"]).get("status", "")
    if status in ("built", "good"):
        return {"changed": False}
    if check_mode or not options["archive"]:
        return {"changed": True}
    os.nice(NICER)
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir(parents=True)
    try:
        run(
            ["tar", "-xzf", options["archive"], "--no-same-owner", "-C", str(release)],
            "Unpacking",
            "",
            {},
            300,
        )
        Path(options["archive"]).unlink()
        releases.write_note(
            options["id"], status="void", reason="being built", source=options["source"], commit=options["commit"],
            built_at=round(time.time(), 3),
        )  # fmt: skip
        [wheel] = release.glob("*.whl")
        venv = virtualenv(releases, release / "app", wheel, options)
        (release / "venv").symlink_to(os.path.relpath(venv, release))
        # Best effort: a file that does not compile is nobody's fault until something imports it.
        compiling = [str(venv / "bin/python"), "-m", "compileall", "-qq", str(release / "app")]
        with subprocess.Popen(compiling, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            import_check(release, options)
        install_listener(releases.base, wheel)
    except ReleaseError as error:
        releases.write_note(options["id"], status="void", reason=str(error))
        raise
    releases.write_note(options["id"], status="built", reason="")
    return {"changed": True}


def migrate(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Run the command that migrates and, where there was no release yet, the one that puts the first records in."""
    current = releases.current()
    commands = [("Migrating", options["migrate"]), ("Seeding", [] if current else options["seed"])]
    commands = [(what, words) for what, words in commands if words and current != options["id"]]
    for what, words in [] if check_mode else commands:
        hint = f"No new program was started. Correct it, then deploy again: {shlex.join(words)}"
        run(words, f"{what} (release {options['id']})", hint, {}, MIGRATE_TIMEOUT)
    return {"changed": bool(commands)}


def begin(releases: Releases, options: dict[str, Any]) -> dict[str, Any]:
    """Note that a deployment is under way; return the id of the one before it, empty for none."""
    deployments = releases.deployments
    link = releases.environments / "env"
    deployments.adopt(releases.current(), link.readlink().name if link.is_symlink() else "", CONF_D)
    deployments.begin(
        {
            "id": options["deployment"], "action": options["action"], "who": options["actor"], "phase": "release",
            "from": releases.current(), "release": options["id"], "commit": options["commit"],
            "environment": Path(options["environment_file"]).name, "target": options["target"],
        }
    )  # fmt: skip
    return {"deployment_before": deployments.current_id()}


def history(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return what a rollback chooses from: records, releases, and what was interrupted."""
    deployments, notes = releases.deployments, releases.all()
    records = {
        name: {key: record.get(key, "") for key in ("id", "previous", "release", "environment", "live_at")}
        for name, record in deployments.all().items()
    }
    known = {
        name: {
            "status": note["status"],
            "good_at": note.get("good_at", 0),
            "requirements": note.get("requirements", ""),
        }
        for name, note in notes.items()
        if (releases.folder / name / "venv").exists()
    }
    draft = {key: value for key, value in deployments.draft().items() if key != "programs"}
    return {
        "changed": False, "current": deployments.current_id(), "release": releases.current(), "records": records,
        "releases": known, "draft": draft, "last": deployments.last(),
    }  # fmt: skip


def activate(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make a deployment the current one: its record, its release, its environment; audit log; prune."""
    deployments, draft = releases.deployments, releases.deployments.draft()
    live, before = deployments.current(), releases.current()
    record = new_record(releases, options)
    is_the_same = options["action"] != "rollback" and bool(live) and identity(record) == identity(live)
    known = live if is_the_same else deployments.read(record["id"])
    wanted = known or record
    link = releases.environments / "env"
    changed = (
        before != wanted["release"]
        or not link.is_symlink()
        or str(link.readlink()) != wanted["environment"]
        or deployments.current_id() != wanted["id"]
    )
    if check_mode:
        return {"changed": changed, "pruned": []}
    if not known or (is_the_same and live["id"] == ADOPTED):  # now we know how its programs are started
        deployments.write({**wanted, "programs": record["programs"]})
    point(releases.base / "current", f"releases/{wanted['release']}")
    point(link, wanted["environment"])
    deployments.point(wanted["id"])
    deployments.drop_draft()
    if not changed and not draft.get("begun"):
        return {"changed": False, "pruned": []}
    if options["action"] != "rollback" or releases.note(wanted["release"]).get("status") != "good":
        releases.write_note(wanted["release"], status="good", reason="", good_at=round(time.time(), 3))
    entry = {
        **options, "who": options["actor"], "deployment": wanted["id"], "from": before, "to": wanted["release"],
        "commit": wanted["commit"], "changed": differences(live, wanted), "outcome": "good",
    }  # fmt: skip
    warnings = note_in_audit_log(releases, entry)
    return {"changed": changed, "pruned": prune(releases, options["keep"]), "warnings": warnings}


def new_record(releases: Releases, options: dict[str, Any]) -> Record:
    """The deployment that is under way, as it is recorded once it is live."""
    deployments, draft = releases.deployments, releases.deployments.draft()
    return {
        "id": options["deployment"] or draft.get("id", ""),
        "previous": options["previous"] or deployments.current_id(),
        "release": options["id"],
        "environment": Path(options["environment_file"]).name,
        "programs": draft.get("programs", deployments.current().get("programs", [])),
        "who": options["actor"],
        "action": options["action"],
        "commit": releases.note(options["id"]).get("commit", ""),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "live_at": round(time.time(), 3),
    }


def fail(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Record a deploy or rollback that failed; the release is marked only for what it did itself."""
    deployments = releases.deployments
    status = releases.note(options["id"]).get("status", "")
    marked = options["release_fault"] and status not in ("good", "")
    if check_mode:
        return {"changed": marked}
    if marked:
        releases.write_note(options["id"], status="failed", reason=options["reason"], failed_at=round(time.time(), 3))
    if options["taken_back"]:
        if options["deployment"] and deployments.current_id() == options["deployment"]:
            withdraw(releases)
        deployments.drop_draft()
    else:
        deployments.keep_draft(options["reason"])
    outcome = f"failed: {first_sentence(options['reason'])}" + ("; taken back" if options["taken_back"] else "")
    note = releases.note(options["id"])
    entry = {
        **options, "who": options["actor"], "from": releases.current(), "to": options["id"] if note else "",
        "commit": note.get("commit", ""), "outcome": outcome,
    }  # fmt: skip
    return {"changed": marked, "warnings": note_in_audit_log(releases, entry)}


def withdraw(releases: Releases) -> None:
    """Take a deployment that was activated here, and failed on another host, out of the chain."""
    deployments = releases.deployments
    record = deployments.current()
    before = deployments.read(record["previous"])
    if before:
        point(releases.base / "current", f"releases/{before['release']}")
        point(releases.environments / "env", before["environment"])
        deployments.point(before["id"])
    else:
        deployments.point_nowhere()
        (releases.base / "current").unlink(missing_ok=True)
    deployments.remove(record["id"])


def first_sentence(text: str) -> str:
    """The first sentence of a message: the audit log has a line for each run, not its story."""
    return next(iter(text.splitlines()), "").partition(". ")[0].rstrip(".")


def note_in_audit_log(releases: Releases, entry: dict[str, Any]) -> list[str]:
    """Add a line to the audit log; return a warning where that is not possible, as on a full disk."""
    try:
        releases.deployments.append(entry)
    except OSError as error:
        return [f"{releases.deployments.audit} has no line for this {entry['action']}: {error.strerror}."]
    return []


def prune(releases: Releases, keep: int) -> list[str]:
    """Remove what nobody needs: deployment records, releases, virtualenvs, environment files.

    Kept: what the last `keep` deployments and the good releases of them need, the newest release that failed, and
    whatever a program file names.
    """
    releases.deployments.prune(keep)
    records = releases.deployments.all().values()
    notes, used = releases.all(), releases.in_use() + releases.deployments.texts()
    bad = [name for name in notes if notes[name]["status"] != "good"]
    bad.sort(key=lambda name: notes[name].get("failed_at") or notes[name].get("built_at", 0))
    kept = {*releases.good()[:keep], releases.current(), *bad[-1:], *(record["release"] for record in records)}
    kept |= {name for name in notes if name in used}
    pruned = [name for name in notes if name not in kept]
    for name in pruned:
        shutil.rmtree(releases.folder / name)
    linked = {(releases.folder / name / "venv").resolve() for name in kept if name}
    for venv in (releases.base / "venvs").iterdir():
        if venv.resolve() not in linked and venv.name not in used:
            shutil.rmtree(venv)
    live = {(releases.environments / "env").resolve().name, *(record["environment"] for record in records)}
    for path in releases.environments.glob("env-*"):
        if path.name not in live and path.name not in used:
            path.unlink()
    return pruned


STATES = {"migrated": migrate, "history": history, "active": activate, "failed": fail}


def act(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what `state` says. Raises ReleaseError."""
    releases = Releases(options["app"], Path(options["base"] or f"/srv/{options['app']}"))
    previous, state, begun = releases.current(), options["state"], time.monotonic()
    if state == "built":
        draft = begin(releases, options) if options["deployment"] and not check_mode else {}
        written = write_environment(options, check_mode)
        result = {**draft, **build(releases, options, check_mode)}
        result["changed"] |= migrate(releases, options, check_mode)["changed"] | written
        result["python"] = python_of(releases, options, options["id"])
        release = releases.folder / options["id"]
        result["watch"] = not release.exists() or (release / "venv/bin/celery-ops-health").exists()
    else:
        result = STATES[state](releases, options, check_mode)
    return {"id": options["id"], "previous": previous, "seconds": round(time.monotonic() - begun, 2), **result}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if module.params["state"] in PHASES:
        host_work.detach(module, PHASES[module.params["state"]])
    try:
        answer = act(module.params, module.check_mode)
    except (ReleaseError, Interrupted) as error:
        module.fail_json(msg=explain(str(error), module.params["app"]))
    except OSError as error:
        module.fail_json(msg=explain(error, module.params["app"]))
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
