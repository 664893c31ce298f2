"""The metrics of an application on one host, written every ten seconds: for Prometheus, for status, and to go on with.

In ``/var/lib/<app>/metrics``: ``<app>.prom`` for node-exporter's textfile collector, ``hour.json`` with the last hour,
``state.json`` with the counts that have to outlive this process. Nothing here waits for the broker (it is asked by a
thread), and nothing that fails here keeps the watchdog from its work. docs/watchdog.md says what each file holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery_ops import deploy_lease, pause, proc
from celery_ops.files import certificate_end, read_json, replace_text
from celery_ops.layout import CERTIFICATES, Layout, program_of
from celery_ops.watchdog.assessment import STATES
from celery_ops.watchdog.broker import Broker
from celery_ops.watchdog.exposition import Exposition
from celery_ops.watchdog.ring import DAY, DAY_EVERY, DAY_SAMPLES, Ring
from celery_ops.watchdog.totals import Totals
from celery_ops.worker.counters import RUNTIME, WAIT
from celery_ops.worker.heartbeat import DRAINING, STANDBY

if TYPE_CHECKING:
    from celery_ops.watchdog.watchdog import Watchdog

EVERY = 10.0
"""Seconds between two rounds."""
FORMAT = 1
FRESH = 35.0
"""Seconds for which the broker's last answer holds."""
DEPLOYS = ("deploy", "rollback")
RELEASE = re.compile(r"/releases/([^/\s]+)/")
COMMAND = re.compile(r"^command=(.*)$", re.MULTILINE)


class Metrics:
    """Collects and writes; `step` is called in each round of the watchdog."""

    def __init__(self, watchdog: Watchdog, directory: Path | None = None, broker: Broker | None = None) -> None:
        self.watchdog, self.layout = watchdog, Layout(watchdog.app)
        self.directory = directory or self.layout.metrics
        self.broker = broker or Broker.of_environment(watchdog.app)
        self.host = socket.gethostname()
        kept = read_json(self.directory / "state.json")
        self.totals = Totals(watchdog.run, kept.get("tasks", {}))
        self.restarts: dict[str, int] = kept.get("restarts", {})
        self.signals: dict[str, dict[str, int]] = kept.get("signals", {})
        self.pids: dict[str, int] = kept.get("pids", {})
        self.empty: dict[str, float] = kept.get("empty", {})
        """By queue, when the broker last said that nothing waits in it; for a new one, when it was first asked for."""
        self.ring = Ring({"format": FORMAT, "app": watchdog.app, "every": EVERY})
        self.ring.load(self.directory / self.layout.hour.name)
        self.day = Ring({"format": FORMAT, "app": watchdog.app, "every": DAY_EVERY}, DAY_SAMPLES, DAY)
        self.day.load(self.directory / self.layout.day.name)
        self.finished: dict[str, int] = {}
        self.last, self.failure = 0.0, ""
        self.audit_of, self.audit = (0, 0), []

    def step(self) -> None:
        """Note what has changed, and write where it is time."""
        self._note_restarts()
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        seconds, self.last = (now - self.last if self.last else 0.0), now
        try:
            self._round(seconds)
            self.failure = ""
        except Exception as error:
            if self.failure != (why := f"{type(error).__name__}: {error}"):
                self.watchdog.say(f"no metrics are written: {why}")
            self.failure = why

    def _note_restarts(self) -> None:
        """Count each time that another process runs a generation: a deploy makes another generation."""
        for name, seen in self.watchdog.seen.items():
            before = self.pids.get(name)
            if before and before != seen.main.pid:
                program = program_of(name)
                self.restarts[program] = self.restarts.get(program, 0) + 1
            self.pids[name] = seen.main.pid
        for name, number in self.watchdog.sent:
            of = self.signals.setdefault(program_of(name), {})
            of[number] = of.get(number, 0) + 1
        self.watchdog.sent.clear()
        self.pids = {name: pid for name, pid in self.pids.items() if name in self.watchdog.trackers}

    def _round(self, seconds: float) -> None:
        self.directory.mkdir(mode=0o755, exist_ok=True)
        now, conf = time.time(), self._conf()
        self.totals.look(proc.pids())
        replace_text(self.directory / "state.json", json.dumps(self._kept(), separators=(",", ":")), 0o644)
        self.totals.tidy()
        tasks, memory = self.totals.of_programs(), self._memory()
        queues = self._queues(now, conf)
        finished = {name: of["finished"] for counts in tasks.values() for name, of in counts.get("queues", {}).items()}
        for name, of in queues.items():
            more = finished.get(name, 0) - self.finished.get(name, finished.get(name, 0))
            of["rate"] = round(max(0, more) / seconds, 3) if seconds and self.finished else None
        self.finished = finished
        beats = self._beats()
        sample = {
            "queues": {name: of for name, of in queues.items() if name != self.layout.dead_queue},
            "programs": {
                program: {"active": beats.get(program, {}).get("active"), "memory": memory.get(program)}
                for program in self._programs()
            },
        }
        self.ring.add(round(now, 1), sample)
        replace_text(self.directory / self.layout.hour.name, self.ring.text(), 0o644)
        # Also where the clock was set back.
        if not self.day.times or not 0 <= now - self.day.times[-1] < DAY_EVERY:
            self.day.add(round(now, 1), self.ring.condensed(now - DAY_EVERY))
            replace_text(self.directory / self.layout.day.name, self.day.text(), 0o644)
        replace_text(self.directory / self.layout.prom.name, self._text(now, conf, queues, tasks, memory, beats), 0o644)
        self.broker.ask(self._wanted(conf))

    def _kept(self) -> dict[str, Any]:
        """Return what the next watchdog goes on with."""
        return {
            **{"tasks": self.totals.kept(), "restarts": self.restarts, "signals": self.signals},
            **{"pids": self.pids, "empty": self.empty},
        }

    # --- What is there

    def _programs(self) -> list[str]:
        """Return the programs of this host, the watchdog with them."""
        return sorted({*map(program_of, self.watchdog.trackers), self.layout.watchdog})

    def _conf(self) -> dict[str, list[str]]:
        """Return by generation the words of its command."""
        found = {}
        for path in self.watchdog.conf_dir.glob(f"{self.watchdog.app}-*.conf"):
            with contextlib.suppress(OSError, ValueError):
                if command := COMMAND.search(path.read_text(encoding="utf-8", errors="replace")):
                    found[path.stem] = shlex.split(command[1].replace("%%", "%"))
        for words in found.values():
            if "worker" in words and (node := _option(words, "-n")) and "@" in node:
                self.host = node.partition("@")[2]  # what the inventory calls it
        return found

    def _configured(self, conf: dict[str, list[str]]) -> set[str]:
        """Return the queues that worker programs of this host are configured to consume from."""
        return {
            queue
            for words in conf.values()
            if "worker" in words and (queues := _option(words, "-Q"))
            for queue in queues.split(",")
        }

    def _consumed(self) -> set[str]:
        """Return the queues that workers of this host consume from now."""
        return {queue for seen in self.watchdog.seen.values() for queue in seen.heartbeat.get("queues", {})}

    def _wanted(self, conf: dict[str, list[str]]) -> dict[str, str]:
        """Return by the broker's name of each queue what it is called here: that of a `Broadcast` by its alias."""
        beats = [seen.heartbeat for seen in self.watchdog.seen.values()]
        aliases = {queue: alias for beat in beats for alias, queue in beat.get("aliases", {}).items()}
        names = {*self._configured(conf), *self._consumed(), self.layout.dead_queue} - set(aliases.values())
        return {name: name for name in names} | aliases

    def _memory(self) -> dict[str, int]:
        """Return the memory of each program in bytes: of its processes, what they share counted once."""
        found: dict[str, int] = {self.layout.watchdog: proc.memory(os.getpid())}
        for name, seen in self.watchdog.seen.items():
            program = program_of(name)
            found[program] = found.get(program, 0) + sum(proc.memory(one.pid) for one in (seen.main, *seen.children))
        return {program: size for program, size in found.items() if size}

    def _beats(self) -> dict[str, dict[str, Any]]:
        """Return of each worker its slots and tasks, all its generations together."""
        found: dict[str, dict[str, Any]] = {}
        for name, seen in self.watchdog.seen.items():
            if seen.heartbeat.get("kind") == "worker":
                of = found.setdefault(program_of(name), dict.fromkeys(("slots", "active", "reserved", "connected"), 0))
                is_draining = seen.heartbeat["state"] == DRAINING
                for key in ("active", "reserved", *(() if is_draining else ("slots", "connected"))):
                    of[key] += int(seen.heartbeat.get(key) or 0)
        return found

    def _queues(self, now: float, conf: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
        """Return of each queue what the broker last said, and how long its oldest message may have waited."""
        answer, held, published = self.broker.answer, self.totals.held(), self.totals.published()
        names = {*self._configured(conf), *self._consumed(), *answer.queues}
        found = {name: {"unacked": max(0, held.get(name, 0))} for name in sorted(names)}
        if now - answer.at > FRESH:
            return found
        for name, of in answer.queues.items():
            # Also where the clock was set back.
            if not of["ready"] or self.empty.get(name, now + 1) > now:
                self.empty[name] = answer.at
            began = max(self.empty[name], published.get(name, 0.0))
            found[name] |= {**of, "oldest": round(max(0.0, now - began), 1) if of["ready"] else 0.0}
        self.empty = {name: at for name, at in self.empty.items() if name in names}
        return found

    # --- What is written

    def _text(
        self,
        now: float,
        conf: dict[str, list[str]],
        queues: dict[str, dict[str, Any]],
        tasks: dict[str, Any],
        memory: dict[str, int],
        beats: dict[str, dict[str, Any]],
    ) -> str:
        out = Exposition(app=self.watchdog.app, host=self.host)
        _declare(out)
        out.add("celery_ops_watchdog_timestamp_seconds", round(now, 1))
        self._say_programs(out, now, conf, memory, beats)
        self._say_queues(out, queues)
        for program, counts in sorted(tasks.items()):
            _say_tasks(out, program, counts)
        self._say_deploys(out)
        for name, end in self._certificates().items():
            out.add("celery_ops_certificate_expiry_timestamp_seconds", end, certificate=name)
        for directory in (self.layout.base, self.layout.log, self.layout.state, self.layout.run):
            with contextlib.suppress(OSError):
                disk = os.statvfs(directory)
                out.add("celery_ops_disk_free_bytes", disk.f_bavail * disk.f_frsize, directory=str(directory))
                out.add("celery_ops_disk_size_bytes", disk.f_blocks * disk.f_frsize, directory=str(directory))
        out.add("celery_ops_paused", int(bool(pause.read(self.layout.pause))))
        return out.text()

    def _say_programs(
        self,
        out: Exposition,
        now: float,
        conf: dict[str, list[str]],
        memory: dict[str, int],
        beats: dict[str, dict[str, Any]],
    ) -> None:
        for name, words in sorted(conf.items()):
            release = next((found[1] for word in words if (found := RELEASE.search(word))), "")
            generation = name.removeprefix(f"{program_of(name)}-")
            out.add("celery_ops_info", 1, program=program_of(name), release=release, generation=generation)
        monotonic = time.monotonic()
        for program in self._programs():
            states, drains = {}, 0.0
            for name, tracker in self.watchdog.trackers.items():
                if program_of(name) == program and tracker.assessment:
                    states[name] = tracker.assessment.state
            if program == self.layout.watchdog:
                states = {program: "ready"}
            for name in states:
                seen = self.watchdog.seen.get(name)
                if seen and seen.heartbeat.get("state") == DRAINING:
                    drains = max(drains, monotonic - seen.heartbeat["since"])
            # While one generation takes over from another, the program is what the one that stays is.
            state = min(states.values(), key=STATES.index, default="down")
            for one in STATES:
                out.add("celery_ops_program_state", int(one == state), program=program, state=one)
            out.add("celery_ops_program_drain_seconds", round(drains, 1), program=program)
            out.add("celery_ops_program_restarts_total", self.restarts.get(program, 0), program=program)
            for number in ("SIGCONT", "SIGTERM", "SIGKILL"):
                count = self.signals.get(program, {}).get(number, 0)
                out.add("celery_ops_watchdog_signals_total", count, program=program, signal=number)
            if program in memory:
                out.add("celery_ops_program_memory_bytes", memory[program], program=program)
            for key, value in beats.get(program, {}).items():
                out.add(f"celery_ops_worker_{key}", value, program=program)
        for name, seen in self.watchdog.seen.items():
            if seen.heartbeat.get("kind") == "scheduler" and seen.heartbeat["state"] != DRAINING:
                beat, program = seen.heartbeat, program_of(name)
                leads = beat["state"] != STANDBY
                out.add("celery_ops_scheduler_leader", int(leads), program=program)
                if leads and "time" in beat:
                    out.add("celery_ops_scheduler_beat_timestamp_seconds", beat["time"], program=program)
                    out.add(
                        "celery_ops_scheduler_next_due_timestamp_seconds", beat["time"] + beat["due"], program=program
                    )
        if tick := self.totals.tick():
            out.add("celery_ops_tick_timestamp_seconds", tick)

    def _say_queues(self, out: Exposition, queues: dict[str, dict[str, Any]]) -> None:
        answer, dead = self.broker.answer, self.layout.dead_queue
        if self.broker.urls:
            out.add("celery_ops_broker_up", int(bool(answer.at) and not answer.error))
            out.add("celery_ops_broker_answer_timestamp_seconds", round(answer.at, 1))
        for name, of in queues.items():
            if name == dead:
                if "ready" in of:
                    out.add("celery_ops_dead_letters", of["ready"], queue=name)
                continue
            for key, metric in QUEUE.items():
                if of.get(key) is not None:
                    out.add(metric, of[key], queue=name)

    def _say_deploys(self, out: Exposition) -> None:
        entries = self._audit_log()
        for action in DEPLOYS:
            for outcome in ("good", "failed", "interrupted"):
                count = sum(1 for one in entries if (one.get("action"), _outcome(one)) == (action, outcome))
                out.add("celery_ops_deploys_total", count, action=action, outcome=outcome)
        deploys = [one for one in entries if one.get("action") in DEPLOYS]
        for outcome in ("good", "failed"):
            if last := next((one for one in reversed(deploys) if _outcome(one) == outcome), None):
                with contextlib.suppress(ValueError, KeyError):
                    at = datetime.strptime(last["at"], "%Y-%m-%dT%H:%M:%S%z").timestamp()
                    out.add("celery_ops_deploy_timestamp_seconds", at, outcome=outcome)
        if deploys and isinstance(deploys[-1].get("seconds"), dict):
            for phase, seconds in sorted(deploys[-1]["seconds"].items()):
                out.add("celery_ops_deploy_phase_seconds", seconds, phase=phase)
        lock = read_json(self.layout.deploy_lock)
        with contextlib.suppress(TypeError, ValueError):
            age = max(0.0, deploy_lease.age(lock)) if lock else 0.0
            out.add("celery_ops_deploy_lock_age_seconds", round(age, 1))

    def _audit_log(self) -> list[dict[str, Any]]:
        """Return the entries of the audit log, read again where it has grown."""
        with contextlib.suppress(OSError):
            stat = self.layout.audit_log.stat()
            if (stat.st_size, stat.st_mtime_ns) != self.audit_of:
                found = []
                for line in self.layout.audit_log.read_text(encoding="utf-8", errors="replace").splitlines():
                    with contextlib.suppress(ValueError):
                        if isinstance(entry := json.loads(line), dict):
                            found.append(entry)
                self.audit_of, self.audit = (stat.st_size, stat.st_mtime_ns), found
        return self.audit

    def _certificates(self) -> dict[str, float]:
        """Return when the certificates end: those that this user may read, and the one that the broker shows."""
        found = {"broker": self.broker.answer.certificate} if self.broker.answer.certificate else {}
        for name, file in {**CERTIFICATES, "ca": self.layout.tls_ca}.items():
            if (end := certificate_end(str(file))) is not None:
                found[name] = end
        return found


QUEUE = {
    "ready": "celery_ops_queue_ready",
    "unacked": "celery_ops_queue_unacked",
    "consumers": "celery_ops_queue_consumers",
    "oldest": "celery_ops_queue_oldest_seconds",
}


def _declare(out: Exposition) -> None:
    """Declare all metrics, with what an operator has to know of each."""
    for name, kind, meaning in (
        ("info", "gauge", "The generations that are configured; the only metric with their release."),
        ("watchdog_timestamp_seconds", "gauge", "When the watchdog wrote this file."),
        ("program_state", "gauge", "1 for the state that the watchdog assesses the program to be in, 0 for others."),
        ("program_drain_seconds", "gauge", "For how long the program's old generation has drained; 0 for none."),
        ("program_restarts_total", "counter", "Starts of a generation after its first; a deploy is none."),
        ("watchdog_signals_total", "counter", "Signals that the watchdog sent to the program."),
        ("program_memory_bytes", "gauge", "Memory of the program's processes (PSS: what is shared counts once)."),
        ("worker_slots", "gauge", "Tasks that the program can run at once; without generations that drain."),
        ("worker_active", "gauge", "Tasks that run, as the last heartbeat says."),
        ("worker_reserved", "gauge", "Tasks that the program holds, those that run included."),
        ("worker_connected", "gauge", "Processes of the program that are connected to the broker."),
        ("scheduler_leader", "gauge", "1 for a scheduler that leads, 0 for one on standby."),
        ("scheduler_beat_timestamp_seconds", "gauge", "When the scheduler's main loop last went round."),
        ("scheduler_next_due_timestamp_seconds", "gauge", "When the scheduler looks at its schedule next."),
        ("tick_timestamp_seconds", "gauge", "When a worker of this host last ran the tick; take the newest host's."),
        ("broker_up", "gauge", "1 if the broker answered the watchdog's last question."),
        ("broker_answer_timestamp_seconds", "gauge", "When the broker last answered the watchdog; 0 for never."),
        ("queue_ready", "gauge", "Messages that wait, as the broker says to this host."),
        ("queue_unacked", "gauge", "Messages that the pools of THIS host hold; without tasks held for their ETA."),
        ("queue_consumers", "gauge", "Consumers of the queue on all hosts, as the broker says to this host."),
        (
            "queue_oldest_seconds",
            "gauge",
            "How long the oldest message has waited AT MOST, within 10 s: since the queue was seen empty, or since the "
            "newest task that came from it to this host was published. 0 where nothing waits. Take the least of all "
            "hosts. Not of messages that were requeued.",
        ),
        ("queue_delivered_total", "counter", "Tasks that came from the queue to the pools of this host."),
        ("queue_finished_total", "counter", "Tasks from the queue that ended on this host, whatever the outcome."),
        ("queue_wait_seconds", "histogram", "From when a task was published, or due (ETA), until it began."),
        ("dead_letters", "gauge", "Messages in the application's dead queue."),
        ("messages_refused_total", "counter", "Messages that were not run or rejected by their task, by reason."),
        ("tasks_started_total", "counter", "Tasks that began."),
        ("tasks_succeeded_total", "counter", "Tasks that returned."),
        ("tasks_failed_total", "counter", "Tasks that failed."),
        ("task_exceptions_total", "counter", "Tasks that failed, by exception."),
        ("tasks_retried_total", "counter", "Tasks that ended with a retry."),
        ("tasks_dropped_total", "counter", "Tasks that ended with Ignore or Reject."),
        ("task_runtime_seconds", "histogram", "How long tasks ran, whatever the outcome."),
        ("deploys_total", "counter", "Deploys and rollbacks in this host's audit log."),
        ("deploy_timestamp_seconds", "gauge", "When the last deploy or rollback of that outcome ended."),
        ("deploy_phase_seconds", "gauge", "How long each phase of the last deploy or rollback took."),
        ("deploy_lock_age_seconds", "gauge", "Seconds since the deploy lock was renewed; 0 if it is free."),
        ("certificate_expiry_timestamp_seconds", "gauge", "When a certificate ends that this application depends on."),
        ("disk_free_bytes", "gauge", "Free space where the application writes."),
        ("disk_size_bytes", "gauge", "Size of that file system."),
        ("paused", "gauge", "1 if an operator has paused something of the application on this host."),
    ):  # fmt: skip
        out.declare(f"celery_ops_{name}", kind, meaning)


def _say_tasks(out: Exposition, program: str, counts: dict[str, Any]) -> None:
    for queue, of in sorted(counts.get("queues", {}).items()):
        out.add("celery_ops_queue_delivered_total", of["delivered"], program=program, queue=queue)
        out.add("celery_ops_queue_finished_total", of["finished"], program=program, queue=queue)
        wait = of["wait"]
        out.histogram("celery_ops_queue_wait_seconds", WAIT, wait["counts"], wait["sum"], program=program, queue=queue)
    refused = {**dict.fromkeys(("unknown", "undecodable", "rejected", "expired", "revoked"), 0), **counts["refused"]}
    for reason, count in refused.items():
        out.add("celery_ops_messages_refused_total", count, program=program, reason=reason)
    for task, of in sorted(counts.get("tasks", {}).items()):
        for what in ("started", "succeeded", "retried", "dropped"):
            out.add(f"celery_ops_tasks_{what}_total", of[what], program=program, task=task)
        out.add("celery_ops_tasks_failed_total", sum(of["failed"].values()), program=program, task=task)
        for exception, count in sorted(of["failed"].items()):
            out.add("celery_ops_task_exceptions_total", count, program=program, task=task, exception=exception)
        took = of["runtime"]
        if not any(took["counts"]):
            continue
        out.histogram(
            "celery_ops_task_runtime_seconds", RUNTIME, took["counts"], took["sum"], program=program, task=task
        )


def _outcome(entry: dict[str, Any]) -> str:
    """Return the first word of an audit entry's outcome: good, failed or interrupted."""
    return re.split(r"\W", str(entry.get("outcome", "")), maxsplit=1)[0]


def _option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words[:-1] else ""
