"""Apply a manifest of programs to this host: look, plan, hand over, tidy up."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.broker_refusal import refused_by_broker, unreached_broker
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import explain
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import Interrupted, interrupt
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.port_conflict import taken_port
from ansible_collections.celery_ops.kit.plugins.module_utils.queue_conflict import advice
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor import intake, plan
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.drain import forget_later
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import (
    Generation,
    prefix_of,
    refuse_invalid,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.handover import FAILURES, Handover, reports
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.logs import prune_logs, prune_state
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect, first_look, look
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.plan import Seen
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.readiness import NotReady, log_tail
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import NoSupervisord, Supervisord

AWAIT_SUPERVISORD = 5.0
"""Seconds for a supervisord that has just been started to answer."""

AWAIT_STARTING = 30.0
"""Seconds to wait for programs that are just coming up, as after a boot, before judging them."""


class HandoverFailed(OperatorError):
    """A handover ended early; `facts` are for the caller."""

    def __init__(self, said: str, facts: dict[str, Any]) -> None:
        super().__init__(said)
        self.facts = facts


class Manifest:
    """One call of the module: what is wanted, what is there, and what follows from it.

    `options` are the module's; `warn` tells the operator of what is no failure.
    """

    def __init__(self, options: Mapping[str, Any], check: bool, warn: Callable[[str], None]) -> None:
        self.options = options
        self.check = check
        self.warn = warn
        self.app = options["app"] or ""
        self.absent = options["state"] == "absent"
        self.prefixes: list[str] = options["program_prefixes"]
        self.programs = [Generation.of_options(one) for one in options["programs"]]
        self.deployments = Deployments(self.app) if self.app else None
        layout = Layout(self.app)
        self.release_root = Path(options["release_root"] or layout.base)
        self.log_dir = Path(options["log_dir"] or layout.log) if options["log_dir"] or self.app else None
        self.run_dir = Path(options["run_dir"] or layout.run) if options["run_dir"] or self.app else None
        self.supervisord_conf = Path(options["supervisord_conf"])
        volatile_dir = Path(options["volatile_dir"] or layout.volatile_conf_dir)
        self.conf_dir = ConfDir(Path(options["conf_dir"]), self.prefixes, volatile_dir)
        self.supervisord: Supervisord | None = None
        self.seen = Seen()
        self.changes: list[plan.Change] = []
        self.operations: list[plan.Operation] = []
        self.reports = reports([], self.seen)
        self.pruned: list[str] = []
        self.told: list[str] = []

    def prepare(self) -> None:
        """Look at everything and plan, changing nothing that matters. Raises OperatorError for what is wrong."""
        if not all(self.prefixes) or not self.prefixes or (self.absent and self.programs):
            raise OperatorError("program_prefixes must not be empty, and state=absent takes no programs.")
        if self.options["restore"]:
            self._restore(self.options["restore"])
        if self.options["restart"]:
            self._take_current()
        refuse_invalid(self.prefixes, self.programs)
        self.conf_dir.refuse_foreign(one.name for one in self.programs)
        if not self.check:
            self.conf_dir.sweep()
            self._refuse_missing_commands()
        self.supervisord = self._connect()
        if self.supervisord:
            first = first_look(self.supervisord, self.conf_dir)
            self.programs = [
                (plan.restarted if one.program in self.options["restart"] else plan.able_to_run)(one, first)
                for one in self.programs
            ]
            wait = 0.0 if self.check else AWAIT_STARTING
            self.seen = look(
                self.supervisord, self.supervisord_conf, self.conf_dir, self.programs, absent=self.absent, wait=wait
            )
        else:
            self.seen = Seen(self.conf_dir.owned(), self.conf_dir.provisional())
        if self.options["successors_only"]:
            self.programs = [one for one in self.programs if plan.olds_of(one, self.seen) or self.seen.is_up(one.name)]
        self.programs = [plan.stops_first(one, self.seen) for one in self.programs]
        self._let_go()
        drain_wait = self.options["drain_wait"]
        self.changes = plan.changes(self.programs, self.seen, waits=drain_wait is None)
        if self.options["leavers_only"] and self.programs:
            self.changes = []
        if self.options["restart"]:  # what else is to be done, a deploy does
            self.changes = [change for change in self.changes if change.program in self.options["restart"]]
        self.operations = plan.plan(self.changes, self.seen, drain_wait, self.options["producers"])
        self.reports = reports(self.changes, self.seen)

    def record(self) -> None:
        """Note what is about to be handed over. A rollback needs no room on the disk."""
        if self.deployments is None:
            return
        try:
            if self.options["draft"]:
                self.deployments.begin(self.options["draft"])
            programs = [asdict(one) for one in self.programs]
            self.deployments.note_programs(self.prefixes, programs, self.options["phase"], self.is_change)
        except OSError as error:
            if not self.options["restore"]:
                raise
            self.warn(f"The rollback is not noted in {self.deployments.directory}: {error.strerror}.")

    @property
    def is_change(self) -> bool:
        """Whether anything is to be done, or was."""
        return any(change.is_change for change in self.changes)

    @property
    def ends_within(self) -> float:
        """The seconds after which this call has ended that was told to: so long undoing everything may take."""
        return host_work.ENDS_WITHIN + plan.START_AGAIN + plan.seconds_back(self.operations, self.seen)

    def result(self) -> dict[str, Any]:
        """Return what is reported whether or not it is done."""
        programs = [self.reports[change.name].result() for change in self.changes]
        return {
            "changed": self.is_change,
            "programs": programs,
            "draining": sorted(name for one in programs for name in one["draining"]),
            "told": self.told,
            "pruned": self.pruned,
            "diff": self._diff(),
        }

    def apply(self) -> None:
        """Carry the plan out. Raises HandoverFailed with what was seen, after going back."""
        if self.supervisord is None:  # absent, and nothing can be running
            for change in self.changes:
                self.conf_dir.put(change.name, None)
            return
        handover = Handover(self.supervisord, self.conf_dir, self.seen, self.reports, self.app, self.run_dir)
        try:
            for number in host_work.SIGNALS:
                signal.signal(number, interrupt)
            handover.run(self.operations)
        except (*FAILURES, Interrupted) as error:
            for number in host_work.SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # nothing interrupts the rollback
            raise self._failure(handover, self.supervisord, error) from None
        finally:
            for warning in handover.warnings:
                self.warn(warning)
        self.told = handover.told
        self._tidy(self.supervisord)
        self._leave_to_finish()

    # --- Before

    def _restore(self, deployment: str) -> None:
        """Take the programs from a deployment's record; those that were given are for a host without it."""
        record = self.deployments.read(deployment) if self.deployments else {}
        if record:
            recorded = [one for one in record["programs"] if prefix_of(one["name"], self.prefixes)]
            self.programs = [Generation.restored(one) for one in recorded]
        elif not self.programs and self.deployments:
            raise OperatorError(
                f"{self.deployments.directory} has no record of deployment {deployment}; nothing was changed. Type: "
                "ansible-playbook playbooks/deploy.yml"
            )

    def _take_current(self) -> None:
        """Take the programs from the record of the deployment that is live: code and settings as they run."""
        deployments = self.deployments
        if deployments is None or not deployments.current():
            raise OperatorError(
                f"No deployment of {self.app} is live on this host; nothing was changed. Type: ansible-playbook "
                "playbooks/deploy.yml"
            )
        if draft := deployments.draft():
            raise OperatorError(
                f"A {draft.get('action') or 'deploy'} of {draft.get('who') or 'somebody'} is unfinished on this host; "
                "nothing was changed. Complete it: ansible-playbook playbooks/deploy.yml, or roll back: "
                "ansible-playbook playbooks/rollback.yml"
            )
        recorded = [one for one in deployments.current()["programs"] if prefix_of(one["name"], self.prefixes)]
        self.programs = [Generation.of_options(one) for one in recorded]

    def _let_go(self) -> None:
        """Let what is to run take tasks: a call that was killed may have left it held."""
        for one in [] if self.check or not self.run_dir else self.programs:
            intake.let_go(self.run_dir, one.name)

    def _refuse_missing_commands(self) -> None:
        for one in self.programs:
            command = one.ready[0] if one.ready else ""
            if command and not Path(command).is_relative_to(self.release_root) and not shutil.which(command):
                raise OperatorError(
                    f"{one.name}: this host lacks {command}, with which the program is asked whether it is ready. "
                    f"Nothing was changed. Install it (apt-get install util-linux has runuser), then deploy again."
                )

    def _connect(self) -> Supervisord | None:
        """Return supervisord. It may be missing in check mode, and when files are all that's left to remove."""
        may_be_missing = self.check or self.absent
        try:
            return connect(self.supervisord_conf, 0 if may_be_missing else AWAIT_SUPERVISORD)
        except NoSupervisord as error:
            if not may_be_missing:
                raise
            if self.supervisord_conf.exists():
                self.warn(f"Looking at files only. {error}")
            return None

    def _diff(self) -> list[dict[str, str]]:
        before, after = self.seen.files, {one.name: one.conf for one in self.programs}
        return [
            {
                "before": before.get(name, ""),
                "after": after.get(name, ""),
                "before_header": str(self.conf_dir.file(name)),
                "after_header": str(self.conf_dir.file(name)),
            }
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]

    # --- After

    def _leave_to_finish(self) -> None:
        """Let what still drains be forgotten when it has ended, whether or not a run comes."""
        if self.app and self.conf_dir.retiring():
            longest = max(self.seen.stopwaitsecs.values(), default=0) + plan.UNKNOWN_STOP
            forget_later(self.supervisord_conf, self.conf_dir, self.app, longest)

    def _tidy(self, supervisord: Supervisord) -> None:
        """Delete preparations, logs and locks of generations that are gone. What goes wrong can wait."""
        try:
            self.conf_dir.sweep()
            if self.absent:
                return
            present = {*supervisord.processes(), *self.conf_dir.owned(), *self.conf_dir.provisional()}
            if self.log_dir:
                self.pruned += prune_logs(self.log_dir, self.prefixes, present, self.options["keep_logs"])
            if self.run_dir:
                self.pruned += prune_state(self.run_dir, self.prefixes, present)
        except (OperatorError, OSError) as error:
            self.warn(f"Files of older generations could not be deleted: {error}")

    # --- A failure

    def _failure(self, handover: Handover, supervisord: Supervisord, error: BaseException) -> HandoverFailed:
        """Go back, if that is possible; return what to say."""
        told = explain(error, self.app) if isinstance(error, OSError) else str(error)
        said = [f"{told.rstrip('.')}."]
        facts: dict[str, Any] = {"release_fault": False, "interrupted": isinstance(error, Interrupted)}
        if handover.committed:
            facts["draining"] = self._still_draining(supervisord)
            finish = ", ".join(facts["draining"])
            said.append("What was handed over is ready and stays. The old generations were told to stop.")
            said.append(f"These finish by themselves: {finish}." if finish else "")
            said.append("The next run completes the handover.")
            self._leave_to_finish()
        else:
            said += handover.go_back()
            said += self._still_running(supervisord)
            with suppress(OSError):
                self.conf_dir.sweep()
            if isinstance(error, Interrupted):
                said.append("Run this again when you are ready.")
        if isinstance(error, NotReady):
            program, since = error.program, handover.log_starts.get(error.program.name, 0)
            facts["failed_program"] = program.name
            facts["log_tail"] = log_tail(program.log, since)
            # The release works as soon as the queue is another, the broker lets it in, or the port is free.
            log, olds = log_tail(program.log, since, 1000), self._running_olds(program)
            conflict = advice(log, self.app, olds) or refused_by_broker(log) or taken_port(log, olds)
            conflict = conflict or unreached_broker(str(error))
            facts["release_fault"] = error.is_release_fault(self.release_root) and not conflict
            said.append(conflict or _advice(program, facts["release_fault"]))
            if facts["log_tail"]:
                said.append(f"The end of {program.log}:\n" + "\n".join(facts["log_tail"]))
        return HandoverFailed(" ".join(filter(None, said)), facts)

    def _still_draining(self, supervisord: Supervisord) -> list[str]:
        told = sorted(name for report in self.reports.values() for name in report.draining)
        try:
            now = supervisord.processes()
        except OperatorError:
            return told
        return [name for name in told if name in now and not now[name].down]

    def _still_running(self, supervisord: Supervisord) -> list[str]:
        """Say which of the older generations have the same process as before."""
        before = self.seen.processes
        try:
            now = supervisord.processes()
        except OperatorError as error:
            return [str(error)]
        return [
            f"{old} keeps running (pid {now[old].pid})."
            for change in self.changes
            for old in change.olds
            if old in now and old in before and now[old].pid and now[old].pid == before[old].pid
        ]

    def _running_olds(self, program: Generation) -> list[str]:
        olds = [old for change in self.changes if change.program == program.program for old in change.olds]
        return [old for old in olds if self.seen.is_up(old)]


def _advice(program: Generation, release_fault: bool) -> str:
    look = f"tail -n 100 {program.log}" if program.log else f"supervisorctl tail {program.name}"
    if release_fault:
        return f"Look at its log ({look}), correct the release or its settings, and deploy again."
    return f"The release is not at fault: correct what is wrong on the host, and deploy again (the log: {look})."
