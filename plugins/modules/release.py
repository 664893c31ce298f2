#!/usr/bin/python
"""Build and activate the releases of one application on one host, and record what was deployed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Build and activate the releases of one application on one host
description:
  - A release is an immutable directory C(<base>/releases/<id>) with C(app/), C(venv) and C(release.json), which says
    whether it is V(built), V(good) or V(failed). Virtualenvs are shared by content - same lock file, same
    Python - so that a change of code alone installs nothing.
options:
  state:
    description:
      - V(built) unpacks, makes the virtualenv, inspects the application and, if told how, migrates; nothing that runs
        is touched. It writes the environment file - one of its own for every content, so that what runs keeps what it
        was started with - and notes that O(deployment) is under way.
      - V(migrated) only migrates, for where several hosts have to be built before.
      - V(history) returns what a rollback chooses from.
      - V(active) points C(current) and the environment's link at the release, marks it good, writes the deployment's
        record and the audit log, and prunes.
      - V(failed) records a deploy or rollback that failed, and marks the release if that was its fault.
    choices: [built, migrated, history, active, failed]
    type: str
    default: built
  app: {description: The application's name., type: str, required: true}
  base: {description: The application's directory; C(/srv/<app>) unless told., type: path}
  id: {description: The release., type: str, default: ""}
  archive:
    description: "The packed source, as C(app/), and the runtime; brought by the action plugin, removed here."
    type: path
  requirements: {description: The lock file inside the source., type: str, default: requirements.txt}
  python: {description: The Python that makes the virtualenv., type: path, default: /usr/bin/python3}
  celery_module: {description: What C(celery -A) gets; it is imported as a check., type: str}
  import_timeout: {description: Seconds that the import may take., type: int, default: 60}
  pools:
    description: The pools of the inventory's worker programs, which the application has to work with.
    type: list
    elements: str
    default: []
  queues:
    description: The queues that the inventory's worker programs name, which the application has to know.
    type: list
    elements: str
    default: []
  default_concurrency:
    description: Whether one of the inventory's worker programs does not say how many tasks it runs at a time.
    type: bool
    default: false
  has_scheduler:
    description: Whether the inventory has a scheduler.
    type: bool
    default: false
  verify_clients:
    description: Whether broker and result store refuse clients that show no certificate.
    type: bool
    default: false
  command_lines:
    description: "Options of the inventory's programs, which Celery has to take: C(about), C(command), C(words)."
    type: list
    elements: dict
    default: []
  environment_file: {description: The environment file that goes with the release., type: path}
  environment_text: {description: What it is to hold., type: str}
  notify_text: {description: "Whom the watchdog tells what it did, as JSON; empty for nobody.", type: str, default: ""}
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
  commands:
    description: The words of each command that runs in the release before it becomes read-only.
    type: list
    elements: list
    default: []
  migrate:
    description:
      - Each command that migrates, C(line) as the inventory has it, and C(words). For the release that is current only
        those run that it has not gone live with.
    type: list
    elements: dict
    default: []
  migrated:
    description: With state=active, the lines of the commands that have migrated; noted with the release.
    type: list
    elements: str
    default: []
  seed:
    description: The words of each command that puts the first records in; run where no release was current before.
    type: list
    elements: list
    default: []
  reason: {description: "With state=failed, what went wrong.", type: str, default: ""}
  release_fault: {description: "With state=failed, whether it was the release's own fault.", type: bool, default: false}
  taken_back: {description: "With state=failed, whether the deployment before runs again.", type: bool, default: false}
  deployment: {description: The deployment's id., type: str, default: ""}
  previous: {description: The deployment before it; the current one unless told., type: str, default: ""}
  target: {description: The deployment that a rollback goes to., type: str, default: ""}
  may_move_results:
    description: Whether the environment may name another database of the result store than the current one.
    type: bool
    default: true
  services_in_force:
    description:
      - By which hosts broker and result store may be known; an environment in force that names others is refused. Empty
        for no such check.
    type: dict
    default: {}
  actor: {description: Who runs this; noted in the audit log., type: str, default: ""}
  action: {description: The verb for the audit log., type: str, default: deploy}
  seconds: {description: What the phases took; noted in the audit log., type: dict, default: {}}
  commits:
    description: The commits that it brings; noted in the audit log.
    type: list
    elements: str
    default: []
  keep: {description: Good releases to keep., type: int, default: 5}
  draining:
    description: With state=active, older generations that were told to stop a moment ago; they are waited for.
    type: list
    elements: str
    default: []
  drain_wait: {description: Seconds that O(draining) is waited for., type: int, default: 0}
  program_prefixes:
    description: What the names of the programs of O(draining) begin with.
    type: list
    elements: str
    default: []
  phase: {description: What the work is called in C(status)., type: str, default: ""}
  run: {description: The run of ansible-playbook; set by the action plugin., type: str, default: ""}
  job: {description: The work whose answer is awaited; set by the action plugin., type: str, default: ""}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- release:
    app: shop
    id: 1f2e3d4c5b6a
    state: current
"""
RETURN = r"""
groups:
  description: The groups whose programs Supervisor has files of on this host, whichever groups the host is in.
  type: list
  elements: str
  returned: state=built
id: {description: The release., type: str, returned: success}
previous: {description: The release that C(current) pointed at before., type: str, returned: success}
python: {description: "The version of its Python, such as C(3.11).", type: str, returned: "state=built, chosen"}
inspect:
  description:
    - What C(celery-ops-inspect) reports of the application, with its environment; empty where the release is not built
      yet (check mode), or its runtime can't tell.
  type: dict
  returned: state=built
listener: {description: The directory that the web's listener runs from., type: str, returned: "state=built, chosen"}
commit_before: {description: The commit of the release that was current., type: str, returned: state=built}
interrupted: {description: "A run that was interrupted, which this one found.", type: str, returned: state=built}
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
draining:
  description: Those of O(draining) that still drain; a process on the host forgets them once they have ended.
  type: list
  elements: str
  returned: state=active
pruned: {description: Releases that were removed., type: list, returned: state=current}
"""

import contextlib
import hashlib
import shlex
import shutil
import time
import xmlrpc.client
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError, run
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import (
    Deployments,
    Record,
    differences,
    has_lone_scheduler,
    identity,
    is_renewal,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import explain
from ansible_collections.celery_ops.kit.plugins.module_utils.environments import is_of_kit, parse, refresh
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import point, read_json, text_if_there, write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import services_in_force
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.paths import Access, file
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import Interrupted
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    ADOPTED,
    CONF_D,
    KEEP_RELEASES,
    OWN_FILE,
    PROGRAMS_OF,
    PYTHON,
    SUPERVISORD_CONF,
    TLS_CLIENT,
    Layout,
    Release,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.listeners import listener_of, prune_listeners
from ansible_collections.celery_ops.kit.plugins.module_utils.release_build import build, rebuild_others
from ansible_collections.celery_ops.kit.plugins.module_utils.release_files import package_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.drain import await_end
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over
from ansible_collections.celery_ops.kit.plugins.module_utils.virtualenvs import prune_virtualenvs

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["built", "migrated", "history", "active", "failed"], "default": "built"},
    "app": {"type": "str", "required": True},
    "base": {"type": "path"},
    "id": {"type": "str", "default": ""},
    "archive": {"type": "path"},
    "requirements": {"type": "str", "default": "requirements.txt"},
    "python": {"type": "path", "default": PYTHON},
    "celery_module": {"type": "str"},
    "import_timeout": {"type": "int", "default": 60},
    "pools": {"type": "list", "elements": "str", "default": []},
    "queues": {"type": "list", "elements": "str", "default": []},
    "default_concurrency": {"type": "bool", "default": False},
    "has_scheduler": {"type": "bool", "default": False},
    "verify_clients": {"type": "bool", "default": False},
    "command_lines": {"type": "list", "elements": "dict", "default": []},
    "environment_file": {"type": "path"},
    "environment_text": {"type": "str", "no_log": True},
    "notify_text": {"type": "str", "default": "", "no_log": True},
    "install_environment": {"type": "str", "no_log": True},
    "user": {"type": "str"},
    "source": {"type": "str", "default": ""},
    "commit": {"type": "str", "default": ""},
    "listener": {"type": "str", "default": ""},
    "commands": {"type": "list", "elements": "list", "default": []},
    "migrate": {"type": "list", "elements": "dict", "default": []},
    "migrated": {"type": "list", "elements": "str", "default": []},
    "seed": {"type": "list", "elements": "list", "default": []},
    "reason": {"type": "str", "default": ""},
    "release_fault": {"type": "bool", "default": False},
    "taken_back": {"type": "bool", "default": False},
    "deployment": {"type": "str", "default": ""},
    "previous": {"type": "str", "default": ""},
    "target": {"type": "str", "default": ""},
    "may_move_results": {"type": "bool", "default": True},
    "services_in_force": {"type": "dict", "default": {}},
    "actor": {"type": "str", "default": ""},
    "action": {"type": "str", "default": "deploy"},
    "seconds": {"type": "dict", "default": {}},
    "commits": {"type": "list", "elements": "str", "default": []},
    "keep": {"type": "int", "default": KEEP_RELEASES},
    "draining": {"type": "list", "elements": "str", "default": []},
    "drain_wait": {"type": "int", "default": 0},
    "program_prefixes": {"type": "list", "elements": "str", "default": []},
    **host_work.OPTIONS,
}
PHASES = {"built": "release", "migrated": "migrate", "active": "activate", "failed": "failed"}
MIGRATE_TIMEOUT = None  # as long as the data take


class Releases:
    """The releases of one application: directories, notes, links."""

    def __init__(self, app: str, base: Path) -> None:
        self.app, self.base = app, base
        self.directory = base / "releases"
        self.environments = Layout(app).etc
        self.deployments = Deployments(app, base)

    def note(self, release: str) -> dict[str, Any]:
        """What release.json says; empty when there is no such release."""
        return read_json(Release(self.directory / release).state_file) if release else {}

    def write_note(self, release: str, **changes: Any) -> None:
        """Change release.json as a whole."""
        write_json(Release(self.directory / release).state_file, {**self.note(release), **changes})

    def all(self) -> dict[str, dict[str, Any]]:
        """Notes of all releases by id."""
        if not self.directory.exists():
            return {}
        names = sorted(path.name for path in self.directory.iterdir() if not path.name.startswith("."))
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
        return "".join(map(text_if_there, CONF_D.glob("*.conf")))


def python_of(releases: Releases, options: dict[str, Any], release: str) -> str:
    """Major and minor version of the Python that a release runs with, or would."""
    settings = releases.directory / release / "venv/pyvenv.cfg"
    if settings.exists():
        lines = dict(line.split(" = ", 1) for line in settings.read_text().splitlines() if " = " in line)
        return ".".join(lines["version"].split(".")[:2])
    command = [options["python"], "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return run(command, options["python"], "Set celery_app_python to a Python 3.11 or newer.", {}, 30).strip()


def write_environment(options: dict[str, Any], check_mode: bool) -> bool:
    """Write the environment file, for root and the application only; say whether it was not there."""
    if not options["environment_text"]:
        return False
    return write_own(Path(options["environment_file"]), options["environment_text"], options["user"], check_mode)


def write_notify(options: dict[str, Any], check_mode: bool) -> bool:
    """Write whom the watchdog tells, likewise, or remove the file where it is nobody; say whether that changed."""
    path = Layout(options["app"]).notify
    if options["notify_text"]:
        return write_own(path, options["notify_text"], options["user"], check_mode)
    if not path.exists():
        return False
    if not check_mode:
        path.unlink()
    return True


def write_own(path: Path, text: str, user: str, check_mode: bool) -> bool:
    """Write a file that root and the application may read; say whether it was another."""
    outcome = Outcome(check_mode)
    file(path, text, Access(OWN_FILE, "root", user), outcome, hidden=True)
    return bool(outcome.paths)


def migrate(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Run the commands that migrate and, where there was no release yet, those that put the first records in."""
    current, known = releases.current(), None
    if current == options["id"] and (known := releases.note(current).get("migrated")) is None:
        return {"changed": False}  # an earlier version of the kit has deployed it, and did not note what it ran
    migrating = [one["words"] for one in options["migrate"] if mark(one["line"]) not in (known or [])]
    kinds = [("Migrating", migrating), ("Seeding", [] if current else options["seed"])]
    commands = [(what, words) for what, each in kinds for words in each]
    for what, words in [] if check_mode else commands:
        hint = f"No new program was started. Correct it, then deploy again: {shlex.join(words)}"
        run(words, f"{what} (release {options['id']})", hint, {}, MIGRATE_TIMEOUT, of_release=True)
    return {"changed": bool(commands)}


def groups_with_programs(app: str) -> list[str]:
    """Return the groups whose programs Supervisor has files of, whichever groups the inventory has the host in."""
    return [
        group
        for group, names in PROGRAMS_OF.items()
        if any(path for name in names for path in CONF_D.glob(f"{app}-{name}-*.conf"))
    ]


def refuse_other_services(app: str, wanted: dict[str, Any]) -> None:
    """Raise ReleaseError where the inventory names another broker or result store than the one that is in force."""
    if found := list(services_in_force.problems(app, wanted)):
        raise ReleaseError(". ".join([*found, "Nothing was changed."]))


def refuse_without_files(environment: str) -> None:
    """Raise ReleaseError where a file of TLS that the environment names is not there: site.yml installs it."""
    known = parse(environment)
    for name in ("CELERY_OPS_TLS_CA", TLS_CLIENT):
        if (file := known.get(name)) and not Path(file).exists():
            raise ReleaseError(f"There is no {file}. Nothing was changed. Type: ansible-playbook playbooks/site.yml")


def refuse_to_move_results(releases: Releases, text: str) -> None:
    """Raise ReleaseError where a new environment looks for results in another database of the kit's Redis."""
    now, then = (backend_of(environment) for environment in ((releases.environments / "env"), text))
    if not all(url and is_of_kit(url.geturl(), releases.app) for url in (now, then)):
        return  # nowhere, or an address that the inventory names
    if now.netloc.rpartition("@")[2] == then.netloc.rpartition("@")[2] and now.path != then.path:
        old, new = (url.path.strip("/") or "0" for url in (now, then))
        raise ReleaseError(
            f"celery_app_result_store_database is not set, and the results of {releases.app} are in database {old}, "
            f"where an earlier version put them. Nothing was changed. Write: celery_app_result_store_database: {old} "
            f"to keep them there, or {new}: results stored so far are then no longer found; they expire within a day."
        )


def backend_of(environment: Path | str) -> SplitResult | None:
    """The result store's address in an environment file, or in the text of one."""
    with contextlib.suppress(OSError):
        text = environment if isinstance(environment, str) else environment.read_text()
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name == "CELERY_RESULT_BACKEND":
                return urlsplit("".join(shlex.split(value)).split(";")[0])
    return None


def begin(releases: Releases, options: dict[str, Any]) -> dict[str, Any]:
    """Note that a deployment is under way; return the id of the one before it, empty for none."""
    deployments = releases.deployments
    link = releases.environments / "env"
    deployments.adopt(releases.current(), link.readlink().name if link.is_symlink() else "", CONF_D)
    interrupted = deployments.begin(
        {
            "id": options["deployment"], "action": options["action"], "who": options["actor"], "phase": "release",
            "from": releases.current(), "release": options["id"], "commit": options["commit"],
            "environment": Path(options["environment_file"]).name, "target": options["target"],
        }
    )  # fmt: skip
    commit = releases.note(releases.current()).get("commit", "")
    return {"deployment_before": deployments.current_id(), "commit_before": commit, "interrupted": interrupted}


def history(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return what a rollback chooses from: records, releases, and what was interrupted."""
    deployments, notes = releases.deployments, releases.all()
    records = {
        name: {key: record.get(key, "") for key in ("id", "previous", "release", "environment", "live_at")}
        | {"lone_scheduler": has_lone_scheduler(record)}
        for name, record in deployments.all().items()
    }
    known = {
        name: {
            "status": note["status"],
            "good_at": note.get("good_at", 0),
            "requirements": note.get("requirements", ""),
            "shows_certificate": note.get("inspect", {}).get("shows_certificate", False),
        }
        for name, note in notes.items()
        if (releases.directory / name / "venv").exists()
    }
    draft = {key: value for key, value in deployments.draft().items() if key != "programs"}
    return {
        "changed": False, "current": deployments.current_id(), "release": releases.current(), "records": records,
        "releases": known, "draft": draft, "last": deployments.last_tried(),
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
    point_at(releases, wanted)
    deployments.drop_draft()
    # A rollback must not bring back a password that was rotated since.
    refresh(releases.environments, releases.app)
    added = options["action"] != "rollback" and note_migrated(releases, wanted["release"], options["migrated"])
    added = added and before == wanted["release"]
    # After one that failed, one that ends well has a line: alert and status go by the last one.
    if not changed and not added and not draft.get("begun") and not deployments.has_failed():
        return {"changed": False, "pruned": []}
    if options["action"] != "rollback" or releases.note(wanted["release"]).get("status") != "good":
        releases.write_note(wanted["release"], status="good", reason="", good_at=round(time.time(), 3))
    entry = {
        **options, "who": options["actor"], "deployment": wanted["id"], "from": before, "to": wanted["release"],
        "commit": wanted["commit"], "changed": [*differences(live, wanted), *["migration"] * added], "outcome": "good",
    }  # fmt: skip
    warnings = note_in_audit_log(releases, entry)
    draining, more = await_drain(releases.app, options)
    pruned: list[str] = []
    try:
        pruned = prune(releases, options["keep"])
    except OSError as error:  # the next deploy tries again; this one is live
        more = [*more, f"What no rollback needs any more could not be removed: {error}. Look at it, and remove it"]
    return {"changed": changed, "pruned": pruned, "draining": draining, "warnings": [*warnings, *more]}


def note_migrated(releases: Releases, release: str, lines: list[str]) -> bool:
    """Note with which commands a release has migrated; say whether there are more than when it went live before."""
    known = releases.note(release).get("migrated")
    noted = list(dict.fromkeys([*(known or []), *map(mark, lines)]))
    if noted != known:
        releases.write_note(release, migrated=noted)
    return known is not None and noted != known


def mark(line: str) -> str:
    """Return what stands for a command line in a file that others may read: it may hold a secret."""
    return hashlib.sha256(line.encode()).hexdigest()[:12]


def await_drain(app: str, options: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Wait for older generations that were told to stop; return those that still drain, and warnings."""
    names = options["draining"]
    if not names:
        return [], []
    conf_dir = ConfDir(CONF_D, options["program_prefixes"], Layout(app).volatile_conf_dir)
    try:
        return await_end(connect(SUPERVISORD_CONF, 0), conf_dir, names, options["drain_wait"])
    except (OperatorError, xmlrpc.client.Fault, OSError) as error:  # it works without, a moment later
        return names, [f"Older generations still stop, which could not be looked at: {error}"]


def point_at(releases: Releases, record: Record) -> None:
    """Move the three links to a deployment: its release, its environment, its record."""
    point(releases.base / "current", f"releases/{record['release']}")
    if record["environment"]:  # what an older version of the kit has deployed may have none
        point(releases.environments / "env", record["environment"])
    releases.deployments.point(record["id"])


def new_record(releases: Releases, options: dict[str, Any]) -> Record:
    """The deployment that is under way, as it is recorded once it is live."""
    deployments, draft = releases.deployments, releases.deployments.draft()
    # A rollback to the first deployment of all: what it comes from is after that, not before.
    goes_back, live = options["action"] == "rollback" and options["deployment"], deployments.current()
    record = {
        "id": options["deployment"] or draft.get("id", ""),
        "previous": options["previous"] or ("" if goes_back else deployments.current_id()),
        "release": options["id"],
        "environment": Path(options["environment_file"]).name,
        "programs": draft.get("programs", live.get("programs", [])),
        "who": options["actor"],
        "action": options["action"],
        "commit": releases.note(options["id"]).get("commit", ""),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "live_at": round(time.time(), 3),
    }
    if options["action"] != "rollback" and is_renewal(live, record):
        record |= {"previous": live["previous"], "renews": live["id"]}
    return record


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
        elif live := deployments.current():  # an activation that failed half-way has moved some of its links
            point_at(releases, live)
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
    before = deployments.read(record.get("renews") or record["previous"])
    if before:
        point_at(releases, before)
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
        shutil.rmtree(releases.directory / name)
    linked = {(releases.directory / name / "venv").resolve() for name in kept if name}
    prune_virtualenvs(releases.base, linked, used)
    # A host without a web program keeps the one of the current release all the same, and does not install it anew.
    package = package_of(releases.directory / releases.current())
    prune_listeners(releases.base, used + f"{listener_of(releases.base, package)} ")
    live = {(releases.environments / "env").resolve().name, *(record["environment"] for record in records)}
    for path in releases.environments.glob("env-*"):
        if path.name not in live and path.name not in used:
            path.unlink()
    return pruned


STATES = {"migrated": migrate, "history": history, "active": activate, "failed": fail}


def act(options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what `state` says. Raises ReleaseError."""
    releases = Releases(options["app"], Path(options["base"] or Layout(options["app"]).base))
    if not releases.directory.is_dir() and not check_mode:
        raise ReleaseError(
            f"{options['app']} was not set up on this host: there is no {releases.directory}. "
            "Type: ansible-playbook playbooks/site.yml"
        )
    previous, state, begun = releases.current(), options["state"], time.monotonic()
    if state == "built" and not options["may_move_results"]:
        refuse_to_move_results(releases, options["environment_text"] or "")
    if state == "built":
        refuse_other_services(options["app"], options["services_in_force"])
        if not check_mode:
            refuse_without_files(options["environment_text"] or "")
        draft = begin(releases, options) if options["deployment"] and not check_mode else {}
        written = write_environment(options, check_mode) | write_notify(options, check_mode)
        result = {**draft, **build(releases, options, check_mode)}
        if result.get("needs_archive"):
            return result
        others = rebuild_others(releases, options, check_mode)
        result["changed"] |= others["changed"]
        if others["warnings"]:
            result["warnings"] = [*result.get("warnings", []), *others["warnings"]]
        # In check mode the release may not be there yet.
        release = releases.directory / options["id"]
        package = package_of(release)
        known = releases.base / "listeners" / options["listener"]
        result["listener"] = str(listener_of(releases.base, package) if package.is_dir() else known)
        result["changed"] |= migrate(releases, options, check_mode)["changed"] | written
        result["groups"] = groups_with_programs(options["app"])
        result["python"] = python_of(releases, options, options["id"])
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
    except ReleaseError as error:
        module.fail_json(msg=explain(str(error), module.params["app"]), release_fault=error.release_fault)
    except (Interrupted, OSError) as error:
        problem = error if isinstance(error, OSError) else str(error)
        module.fail_json(msg=explain(problem, module.params["app"]), release_fault=False)
    for warning in answer.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
