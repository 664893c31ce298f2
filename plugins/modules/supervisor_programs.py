#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: apply a manifest of Supervisor programs to one host, generation by generation."""

from __future__ import annotations

import shutil
import signal
import sys
import time
import xmlrpc.client
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import explain
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import Interrupted, interrupt
from ansible_collections.celery_ops.kit.plugins.module_utils.queue_conflict import advice
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_conf import (
    ConfDir,
    Parser,
    Program,
    check_manifest,
    prefix_of,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_drain import forget_later
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_handover import (
    RUN_ON,
    SIGNALS,
    START_AGAIN,
    STOP_MARGIN,
    UNKNOWN_STOP,
    Handover,
    Step,
    one_that_can_run,
    orphans_of,
    plan,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_logs import prune_logs, prune_state
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_proof import NotProven, log_tail
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor_rpc import (
    Endpoint,
    NoSupervisord,
    Process,
    Reread,
    Supervisord,
    Trouble,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: supervisor_programs
short_description: Hand programs under Supervisor over from one generation to the next
description:
  - Makes the conf.d files and the running programs of one owner match a manifest, in one call.
  - A program whose conf is unchanged and which runs is not touched and keeps its PID. A new generation is
    started, proven (it came up, its ready command said yes, it stayed up) and only then is the old one
    stopped.
  - If a new generation is not proven, everything goes back to where it was, and the module fails with what
    was seen.
  - The whole configuration is parsed by Supervisor's own parser before a file lands, and all files are written
    before a program is stopped.
  - A generation that is not proven yet, and one that retires, has a link in O(conf_dir) that leads into
    O(volatile_dir). A reboot empties that, so that the generation proven last runs afterwards, and no other. The next
    run deletes links that lead nowhere. Where a reboot does not empty C(/run), as in a container without a tmpfs there,
    a reboot in the middle of a handover starts both generations, until the next run.
  - >-
    Only files that carry the owner's mark, and the programs of these files, are ever touched. The mark is a
    line of its own in the conf: C(# owner: celery-ops <family_prefix>).
  - Asks supervisord to read its files anew even in check mode, which starts and stops nothing.
requirements:
  - Debian's package C(supervisor) on the host. In check mode it may be missing as yet.
options:
  family_prefix:
    description:
      - What the names of this owner's programs begin with, for instance C(petct-worker-). With several, the call is
        about the programs of them all.
    type: list
    elements: str
    required: true
  programs:
    description: The programs that are to run. What is owned and not listed is stopped and removed.
    type: list
    elements: dict
    default: []
    suboptions:
      family:
        description: What stays the same from one generation to the next.
        type: str
        required: true
      name:
        description:
          - The name of the generation. The family, a dash and 8 hex digits; or the family itself for a
            program without generations, which is then restarted when its conf changes.
        type: str
        required: true
      conf:
        description:
          - The text of C(<conf_dir>/<name>.conf), with the owner's mark and the section C([program:<name>]).
        type: str
        required: true
      ready:
        description:
          - A command that tells whether the program works. Yes is exit status 0 and, if its last line of
            output is a JSON object with the key C(ready), that being true. Any other answer is asked for
            again until O(programs[].ready_timeout); C(reason) in the JSON, or the last line of output, is
            reported.
          - Runs as the module's user, from the start of the program on. Without it, C(RUNNING) is enough.
        type: list
        elements: str
        default: []
      ready_timeout:
        description: Seconds until the program must be C(RUNNING) and ready.
        type: int
        default: 30
      settle:
        description: Seconds that the program must stay up, with one PID, after it was ready.
        type: int
        default: 0
      lasting_children:
        description:
          - When it has settled, one of the processes that it started has to have lasted, if there are any. For a server
            that starts its own processes again and again, whatever they die of, and so stays up itself.
        type: bool
        default: false
      strategy:
        description:
          - V(overlap) starts the new generation beside the old one, proves it, then stops the old one.
          - V(replace) stops the old one, then starts the new one. Never do two run, and the gap is measured.
          - V(one_by_one) is V(overlap) for a program at a time, so that at most one more than usual is in memory. If
            a later program fails, those handed over already go back.
          - All programs but those of V(one_by_one) go at once - what is replaced stops, everything new starts and is
            proven, then the old ones that are left stop - and before those of V(one_by_one).
        type: str
        choices: [overlap, one_by_one, replace]
        default: overlap
      restore_strategy:
        description: The strategy by which a rollback brings it back, if that is another.
        type: str
        choices: [overlap, one_by_one, replace]
      stop_timeout:
        description:
          - Seconds to wait for the old generation to finish. By default, and if this is C(stopwaitsecs) or
            more, until 10 s after its C(stopwaitsecs), when supervisord has killed it. One that still
            drains is left to itself.
        type: int
      log:
        description: The program's log, whose last lines are shown if it fails.
        type: path
  state:
    description: V(absent) stops, drains and removes all that is owned; O(programs) must then be empty.
    type: str
    choices: [present, absent]
    default: present
  app:
    description:
      - The application, whose name the defaults of other options hold. With it, the programs are noted in the record of
        the deployment that is under way, and the work is done by a process of its own, under the application's lock in
        C(/run/celery-ops), which goes on when the connection is lost; see C(module_utils/host_work.py).
    type: str
  phase:
    description: What is handed over, for the record and for whoever looks at the work.
    type: str
    default: ""
  draft:
    description: The deployment that begins with this call, for the record; see C(module_utils/deployments.py).
    type: dict
  restore:
    description:
      - The id of a deployment of O(app). Its programs are brought back as they ran, from its record; O(programs) are
        only for a host without that record. It was healthy before, so there is no observation period, and what
        has a V(restore_strategy) is brought back by that.
    type: str
  conf_dir:
    description: Where the conf files are.
    type: path
    default: /etc/supervisor/conf.d
  supervisord_conf:
    description: The configuration of supervisord, which also says where it listens.
    type: path
    default: /etc/supervisor/supervisord.conf
  volatile_dir:
    description: Where the conf files are that must not outlive a reboot. By default C(/run/celery-ops/<app>/conf.d).
    type: path
  release_root:
    description:
      - Where releases are, C(/srv/<app>) by default. A program or ready command that can't be executed is the release's
        fault if it is in there, and the host's if not.
    type: path
  log_dir:
    description: Where the logs of the programs are, C(/var/log/<app>) with O(app). It must be root's.
    type: path
  run_dir:
    description: Where the pidfiles, locks and heartbeats of the programs are, C(/run/<app>) with O(app).
    type: path
  keep_logs:
    description: Of how many generations that are gone to keep the logs, for each program.
    type: int
    default: 5
  drain_wait:
    description:
      - Seconds that this call waits for old generations to finish; what still drains is listed in RV(draining), and
        no later call with a O(drain_wait) waits for it. With O(app), a process of its own stays until they are gone,
        and removes their conf files. By default, the call waits until they are gone. With V(one_by_one), it limits the
        wait for the last program only; with V(replace), it has no effect.
    type: int
  run:
    description: The run of ansible-playbook; set by the action plugin.
    type: str
    default: ""
  job:
    description: The work whose answer is awaited; set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reports exactly what would be done.
  diff_mode:
    support: full
    description: Shows the conf files.
author:
  - celery-ops (@celery-ops)
"""

EXAMPLES = r"""
- name: Run the workers
  supervisor_programs:
    family_prefix: petct-worker-
    programs:
      - family: petct-worker-default
        name: petct-worker-default-1a2b3c4d
        conf: "{{ lookup('template', 'supervisor/program.conf.j2') }}"
        ready: [/srv/petct/current/venv/bin/celery-ops-ready, -A, petct]
        ready_timeout: 30
        settle: 5
        log: /var/log/petct/petct-worker-default-1a2b3c4d.log

- name: Remove them
  supervisor_programs:
    family_prefix: petct-worker-
    state: absent
"""

RETURN = r"""
seconds: {description: What it took., type: float, returned: success}
programs:
  description: What was done with each program, in the order of the manifest, then what was removed.
  returned: always
  type: list
  elements: dict
  contains:
    family: {description: Its family., type: str, returned: always}
    name: {description: Its name., type: str, returned: always}
    action:
      description:
        - V(unchanged); V(started), for the first time or because it was down; V(handed_over) from older
          generations; V(replaced), old stopped first; V(restarted), with a changed conf under the same name;
          V(rewritten), only the text of the file changed and the process goes on; V(drained), it ran already, and
          what it took over from finished; V(removed).
      type: str
      returned: always
    from: {description: Older generations it took over from., type: list, elements: str, returned: always}
    pid: {description: The PID it runs with., type: int, returned: always}
    seconds:
      description: C(ready), from start until ready; C(drain), until the old one had ended.
      type: dict
      returned: always
    gap: {description: Seconds from stopping the old until the new was ready., type: float, returned: always}
    killed:
      description: Old generations that supervisord had to kill after their stopwaitsecs.
      type: list
      elements: str
      returned: always
    draining:
      description: Old generations that had not finished within O(programs[].stop_timeout) and still do.
      type: list
      elements: str
      returned: always
draining: {description: All old generations that still drain., type: list, elements: str, returned: success}
pruned:
  description: Logs, locks and other files of generations that are gone, which were deleted.
  returned: success
  type: list
  elements: str
failed_program:
  description: The program that did not come up.
  returned: on failure of a program
  type: str
release_fault:
  description:
    - Whether the release itself is the cause - its program did not come up, was not ready or did not stay up. Not so
      for another's conf file, a full disk, a program that the host lacks, an interruption.
  returned: on failure
  type: bool
interrupted:
  description: Whether a signal ended the call; RV(draining) then says which old generations finish by themselves.
  returned: on failure of a handover
  type: bool
log_tail:
  description: The last 20 lines of its log.
  returned: on failure of a program
  type: list
  elements: str
"""

ARGUMENTS: dict[str, Any] = {
    "family_prefix": {"type": "list", "elements": "str", "required": True},
    "programs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "family": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "conf": {"type": "str", "required": True},
            "ready": {"type": "list", "elements": "str", "default": []},
            "ready_timeout": {"type": "int", "default": 30},
            "settle": {"type": "int", "default": 0},
            "lasting_children": {"type": "bool", "default": False},
            "strategy": {"type": "str", "choices": ["overlap", "one_by_one", "replace"], "default": "overlap"},
            "restore_strategy": {"type": "str", "choices": ["overlap", "one_by_one", "replace"]},
            "stop_timeout": {"type": "int"},
            "log": {"type": "path"},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "app": {"type": "str"},
    "draft": {"type": "dict"},
    "restore": {"type": "str"},
    "conf_dir": {"type": "path", "default": "/etc/supervisor/conf.d"},
    "supervisord_conf": {"type": "path", "default": "/etc/supervisor/supervisord.conf"},
    "volatile_dir": {"type": "path"},
    "release_root": {"type": "path"},
    "log_dir": {"type": "path"},
    "run_dir": {"type": "path"},
    "keep_logs": {"type": "int", "default": 5},
    "drain_wait": {"type": "int"},
    **host_work.OPTIONS,
}

QUEUES = "@QUEUES@"
"""Stands for the application's own queues where they are not known; see plugins/filter/celery_programs.py."""

AWAIT_SUPERVISORD = 5.0
"""Seconds for a supervisord that has just been started to answer."""

AWAIT_STARTING = 30.0
"""Seconds to wait for programs that are just coming up, as after a boot, before judging them."""


class Manifest:
    """One call of the module: what is wanted, what is there, and what follows from it."""

    def __init__(self, module: AnsibleModule) -> None:
        parameters = module.params
        self.module = module
        self.absent = parameters["state"] == "absent"
        self.prefixes = parameters["family_prefix"]
        self.deployments = Deployments(parameters["app"]) if parameters["app"] else None
        self.programs = [Program(**program) for program in parameters["programs"]]
        if parameters["restore"] and self.deployments:
            self._restore(parameters["restore"])
        self.app = parameters["app"] or ""
        volatile_dir = Path(parameters["volatile_dir"] or Path("/run/celery-ops", self.app, "conf.d"))
        self.release_root = Path(parameters["release_root"] or Path("/srv", self.app))
        self.conf_dir = ConfDir(Path(parameters["conf_dir"]), self.prefixes, volatile_dir)
        self.supervisord_conf = Path(parameters["supervisord_conf"])
        self.supervisord: Supervisord | None = None
        self.processes: dict[str, Process] = {}
        self.reread = Reread(frozenset(), frozenset(), frozenset())
        self.stopwaitsecs: dict[str, int] = {}
        self.steps: list[Step] = []
        self.owned: dict[str, str] = {}
        self.pruned: list[str] = []

    def _restore(self, deployment: str) -> None:
        """Take the programs from a deployment's record; those that were given are for a host without it."""
        assert self.deployments
        record = self.deployments.read(deployment)
        if record:
            recorded = [program for program in record["programs"] if prefix_of(program["name"], self.prefixes)]
            self.programs = [Program.restored(program) for program in recorded]
        elif not self.programs:
            self.module.fail_json(
                msg=f"{self.deployments.folder} has no record of deployment {deployment}; nothing was changed. Type: "
                "ansible-playbook playbooks/deploy.yml",
                programs=[],
            )

    def record(self) -> None:
        """Note what is about to be handed over. A rollback needs no room on the disk."""
        if self.deployments is None:
            return
        draft, phase = self.module.params["draft"], self.module.params["phase"]
        try:
            if draft:
                self.deployments.begin(draft)
            programs = [asdict(program) for program in self.programs]
            self.deployments.note_programs(self.prefixes, programs, phase, self.result()["changed"])
        except OSError as error:
            if not self.module.params["restore"]:
                raise
            self.module.warn(f"The rollback is not noted in {self.deployments.folder}: {error.strerror}.")

    def prepare(self) -> None:
        """Look at everything and plan, changing nothing that matters. Raises Trouble for what is wrong already."""
        if not all(self.prefixes) or not self.prefixes or (self.absent and self.programs):
            raise Trouble("family_prefix must not be empty, and state=absent takes no programs.")
        check_manifest(self.prefixes, self.programs)
        self.owned = self.conf_dir.owned()
        self.conf_dir.refuse_foreign(program.name for program in self.programs)
        self._refuse_unknown_queues()
        if not self.module.check_mode:
            self.conf_dir.sweep()
            self._refuse_missing_commands()
        self._connect()
        if self.supervisord:
            processes, provisional = self.supervisord.processes(), self.conf_dir.provisional()
            self.programs = [one_that_can_run(program, processes, self.owned, provisional) for program in self.programs]
        differs = self._read_loaded() if self.supervisord else set()
        families = None if self.absent else {program.family for program in self.programs}
        orphans = orphans_of(self.prefixes, families, self.reread.removed)
        provisional = self.conf_dir.provisional()
        self.steps = plan(self.programs, self.owned, self.processes, differs, orphans, provisional)
        if self.module.params["drain_wait"] is not None:
            for step in self.steps:
                if step.action == "drained":
                    step.draining = [old for old in step.olds if self._is_stopping(old)]

    def _is_stopping(self, name: str) -> bool:
        return name in self.processes and self.processes[name].state == "STOPPING"

    def _refuse_unknown_queues(self) -> None:
        for program in self.programs:
            if QUEUES not in program.conf:
                continue
            if not self.module.check_mode:
                raise Trouble(
                    f"{program.name}: its entry in celery_worker_programs has no queues, and this release can't tell "
                    "the application's own: an earlier version of the kit built it. Write: queues: [...]"
                )
            self.module.warn(
                f"{program.family}: its queues are the application's own, which are known once the release is built; "
                "check mode builds none."
            )

    def _refuse_missing_commands(self) -> None:
        for program in self.programs:
            command = program.ready[0] if program.ready else ""
            if command and not Path(command).is_relative_to(self.release_root) and not shutil.which(command):
                raise Trouble(
                    f"{program.name}: this host lacks {command}, with which the program is asked whether it is ready. "
                    f"Nothing was changed. Install it (apt-get install util-linux has runuser), then deploy again."
                )

    def _connect(self) -> None:
        """Find supervisord. It may be missing in check mode, and when files are all that's left to remove."""
        try:
            import supervisor  # noqa: F401
        except ImportError:
            if self.module.check_mode or self.absent:
                return
            raise Trouble(
                f"{sys.executable} can't import supervisor. Install Debian's package (apt-get install "
                f"supervisor) and let ansible_python_interpreter be /usr/bin/python3."
            ) from None
        try:
            supervisord = Supervisord(Endpoint.from_conf(self.supervisord_conf))
            supervisord.await_answer(0 if self.module.check_mode or self.absent else AWAIT_SUPERVISORD)
        except Trouble as trouble:
            gone = isinstance(trouble, NoSupervisord) or not self.supervisord_conf.exists()
            if gone and (self.module.check_mode or self.absent):
                self.module.warn(f"Looking at files only. {trouble}")
                return
            raise
        self.supervisord = supervisord

    def _read_loaded(self) -> set[str]:
        """Read what supervisord runs; return the intended programs whose loaded settings are others."""
        assert self.supervisord
        parser = Parser(self.supervisord_conf, self.conf_dir, self.supervisord.environment())
        try:
            current = parser.groups({})
        except ValueError:
            current = {}
        texts = {program.name: program.conf for program in self.programs}
        written = [name for name, text in texts.items() if self.owned.get(name) != text]
        intended = current if self.absent else parser.check(texts, written)
        self.stopwaitsecs = {
            name: group.process_configs[0].stopwaitsecs for name, group in intended.items() if group.process_configs
        }
        try:
            self.reread = self.supervisord.reread()
        except Trouble:
            if not (self.absent or written):
                raise
        self.processes = self._settled_processes()
        # What is loaded can't be asked for, only whether it differs from the file. Where the file differs from both,
        # the file is the likely culprit: somebody edited it. Handover looks again as soon as the file is right.
        return {
            name
            for name in texts
            if name in self.processes
            and name in current
            and (name in self.reread.changed) == (current[name] == intended[name])
        }

    def _settled_processes(self) -> dict[str, Process]:
        assert self.supervisord
        deadline = time.monotonic() + (0 if self.module.check_mode else AWAIT_STARTING)
        names = {program.name for program in self.programs}
        while True:
            processes = self.supervisord.processes()
            moving = [name for name in names & set(processes) if processes[name].state in ("STARTING", "STOPPING")]
            if not moving or time.monotonic() >= deadline:
                return processes
            time.sleep(0.2)

    def result(self) -> dict[str, Any]:
        """Return what is reported whether or not it is done."""
        return {
            "changed": any(step.changes for step in self.steps),
            "programs": [step.result() for step in self.steps],
            "draining": sorted(name for step in self.steps for name in step.draining),
            "pruned": self.pruned,
            "diff": self._diff(),
        }

    def _diff(self) -> list[dict[str, str]]:
        after = {program.name: program.conf for program in self.programs}
        return [
            {
                "before": self.owned.get(name, ""),
                "after": after.get(name, ""),
                "before_header": str(self.conf_dir.file(name)),
                "after_header": str(self.conf_dir.file(name)),
            }
            for name in sorted({*self.owned, *after})
            if self.owned.get(name) != after.get(name)
        ]

    def apply(self) -> None:
        """Carry the plan out; on failure go back and end the module with what was seen."""
        if self.supervisord is None:  # absent, and nothing can be running
            for step in self.steps:
                self.conf_dir.put(step.name, None)
            return
        drain_wait = self.module.params["drain_wait"]
        handover = Handover(self.supervisord, self.conf_dir, self.stopwaitsecs, self.app, drain_wait)
        try:
            for number in SIGNALS:
                signal.signal(number, interrupt)
            handover.run(self.steps)
        except (NotProven, Trouble, xmlrpc.client.Fault, OSError, Interrupted) as error:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # nothing interrupts the way back
            self._fail(handover, error)
        for warning in handover.warnings + self._tidy():
            self.module.warn(warning)
        self._leave_to_finish()

    def _leave_to_finish(self) -> None:
        """Let what still drains be forgotten when it has ended, whether or not a run comes."""
        if self.app and self.conf_dir.retiring():
            longest = max(self.stopwaitsecs.values(), default=0) + UNKNOWN_STOP
            forget_later(self.supervisord_conf, self.conf_dir, self.app, longest)

    def _tidy(self) -> list[str]:
        """Delete preparations, logs and locks of generations that are gone; return what went wrong, which can wait."""
        assert self.supervisord
        try:
            self.conf_dir.sweep()
            present = {*self.supervisord.processes(), *self.conf_dir.owned(), *self.conf_dir.provisional()}
            log_dir = self._directory("log_dir", "/var/log")
            run_dir = self._directory("run_dir", "/run")
            if log_dir and not self.absent:
                self.pruned += prune_logs(log_dir, self.prefixes, present, self.module.params["keep_logs"])
            if run_dir and not self.absent:
                self.pruned += prune_state(run_dir, self.prefixes, present)
        except (Trouble, OSError) as error:
            return [f"Files of older generations could not be deleted: {error}"]
        return []

    def _directory(self, option: str, parent: str) -> Path | None:
        named = self.module.params[option]
        return Path(named) if named else Path(parent, self.app) if self.app else None

    def _fail(self, handover: Handover, error: BaseException) -> NoReturn:
        told = explain(error, self.app) if isinstance(error, OSError) else str(error)
        said = [f"{told.rstrip('.')}."]
        facts: dict[str, Any] = {"release_fault": False}
        facts["interrupted"] = isinstance(error, Interrupted)
        if handover.committed:
            facts["draining"] = self._still_draining()
            finish = ", ".join(facts["draining"])
            said.append("What was handed over is proven and stays. The old generations were told to stop.")
            said.append(f"These finish by themselves: {finish}." if finish else "")
            said.append("The next run completes the handover.")
            self._leave_to_finish()
        else:
            said += handover.undo.run() if handover.undo else ["Nothing was changed."]
            said += self._still_running()
            with suppress(OSError):
                self.conf_dir.sweep()
            if isinstance(error, Interrupted):
                said.append("Run this again when you are ready.")
        if isinstance(error, NotProven):
            facts["failed_program"] = error.program.name
            since = handover.log_starts.get(error.program.name, 0)
            facts["log_tail"] = log_tail(error.program.log, since)
            # The release works as soon as the queue is another.
            conflict = advice(log_tail(error.program.log, since, 1000), self.app, self._running_olds(error.program))
            facts["release_fault"] = error.is_release_fault(self.release_root) and not conflict
            said.append(conflict or self._advice(error.program, facts["release_fault"]))
            if facts["log_tail"]:
                said.append(f"The end of {error.program.log}:\n" + "\n".join(facts["log_tail"]))
        for warning in handover.warnings:
            self.module.warn(warning)
        self.module.fail_json(msg=" ".join(filter(None, said)), **facts, programs=[])

    def _still_draining(self) -> list[str]:
        assert self.supervisord
        told = sorted(name for step in self.steps for name in step.draining)
        try:
            now = self.supervisord.processes()
        except Trouble:
            return told
        return [name for name in told if name in now and not now[name].down]

    def ends_within(self) -> float:
        """Return the seconds that the way back takes at most."""
        seconds = host_work.ENDS_WITHIN
        for step in self.steps:
            whole = step.action == "restarted" or (step.program and step.program.strategy == "replace")
            seconds += START_AGAIN + (self.stopwaitsecs.get(step.name, 0) + STOP_MARGIN if whole else RUN_ON)
        return seconds

    def _still_running(self) -> list[str]:
        """Say which of the older generations have the same process as before."""
        assert self.supervisord
        try:
            now = self.supervisord.processes()
        except Trouble as trouble:
            return [str(trouble)]
        olds = [old for step in self.steps for old in step.olds]
        return [
            f"{old} keeps running (pid {now[old].pid})."
            for old in olds
            if old in now and old in self.processes and now[old].pid and now[old].pid == self.processes[old].pid
        ]

    def _running_olds(self, program: Program) -> list[str]:
        olds = [old for step in self.steps if step.family == program.family for old in step.olds]
        return [old for old in olds if old in self.processes and self.processes[old].up]

    def _advice(self, program: Program, release_fault: bool) -> str:
        look = f"tail -n 100 {program.log}" if program.log else f"supervisorctl tail {program.name}"
        if release_fault:
            return f"Look at its log ({look}), correct the release or its settings, and deploy again."
        return f"The release is not at fault: correct what is wrong on the host, and deploy again (the log: {look})."


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    work = host_work.detach(module, module.params["phase"] or "programs")
    manifest, begun = Manifest(module), time.monotonic()
    try:
        manifest.prepare()
        if not module.check_mode:
            manifest.record()
    except (Trouble, OSError, Interrupted) as error:
        told = explain(error, manifest.app) if isinstance(error, OSError) else str(error)
        module.fail_json(msg=told, release_fault=False, programs=[])
    work.say(ends_within=manifest.ends_within())
    if not module.check_mode and manifest.result()["changed"]:
        manifest.apply()
    module.exit_json(**manifest.result(), seconds=round(time.monotonic() - begun, 2))


if __name__ == "__main__":
    main()
