"""Supervisor, the application's programs, pidfiles and orphans; and that their times agree."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, fail, fine, judge, skip, warn
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts, Program
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout

DEPLOY, SITE = "ansible-playbook playbooks/deploy.yml", "ansible-playbook playbooks/site.yml"
LATE = 60.0
"""Seconds after which a heartbeat is too old."""
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "day": 86400, "w": 604800, "month": 2629800}
check_programs = partial(check, needs="supervisor", silent="Supervisor does not answer")
"""Decorates a check of a Supervisor that answers; one that does not has one failure, supervisor-answers."""


def seconds_of(span: str) -> float:
    """Return the seconds of a time in systemd's spelling, such as `1h 30s`; infinite for `infinity`."""
    if span == "infinity":
        return float("inf")
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)\s*([a-z]+)", span))


def option_of(program: Program, name: str) -> int | None:
    """Return the number that an option of the program's command has; None where it has none."""
    command = re.search(r"^command=(.*)$", program.conf, re.MULTILINE)
    words = shlex.split(command[1].replace("%%", "%")) if command else []
    for at, word in enumerate(words):
        if word == name and at + 1 < len(words):
            return int(float(words[at + 1]))
    return None


def stop_seconds(program: Program) -> int:
    """Return the seconds that Supervisor waits for the program to stop."""
    found = re.search(r"^stopwaitsecs=(\d+)", program.conf, re.MULTILINE)
    return int(found[1]) if found else 10


def limited(facts: Facts) -> Iterator[tuple[Program, int]]:
    """Yield the worker programs in conf.d and their time limits."""
    for program in facts.supervisor.programs:
        limit = option_of(program, "--time-limit")
        if limit is not None:
            yield program, limit


@check("supervisor-answers", "supervisor")
def answers(facts: Facts) -> Finding:
    """Supervisor answers on its socket."""
    return judge(bool(facts.supervisor.refused), facts.supervisor.refused or "it answers", "service supervisor start")


@check_programs("supervisor-socket")
def socket_mode(facts: Facts) -> Finding:
    """Supervisor's socket, by which anybody would become root, is root's."""
    seen = facts.supervisor.socket
    if seen is None:
        return fail("its configuration names no socket", SITE)
    evidence = f"{seen.path} has mode {seen.mode:04o} and owner {seen.owner}"
    fix = "in /etc/supervisor/supervisord.conf, [unix_http_server]: chmod=0700, then: service supervisor restart"
    if seen.owner != "root" or seen.mode & 0o007:
        return fail(evidence, fix)
    return judge(bool(seen.mode & 0o070), evidence, fix, "pass")


@check_programs("supervisor-inet")
def inet(facts: Facts) -> Finding:
    """Supervisor listens on no network."""
    where = facts.supervisor.inet
    fix = (
        "remove the section [inet_http_server] from /etc/supervisor/supervisord.conf, then: service supervisor restart"
    )
    is_local = where.startswith(("127.", "localhost", "[::1]"))
    return judge(bool(where), f"inet_http_server on {where}" if where else "none", fix, "warn" if is_local else "fail")


@check_programs("supervisor-unit")
def unit(facts: Facts) -> Finding:
    """A stop of the service reaches supervisord alone, which drains the programs: KillMode=process."""
    if not facts.supervisor.unit:
        return skip("no systemd")
    mode = facts.supervisor.unit.get("KillMode", "")
    bad = mode != "process" or not facts.supervisor.dropin
    evidence = f"KillMode={mode}, drop-in celery-ops.conf {'there' if facts.supervisor.dropin else 'missing'}"
    return judge(bad, evidence, f"{SITE} --tags supervisor; then: systemctl daemon-reload")


@check_programs("supervisor-boot")
def boot(facts: Facts) -> Finding:
    """Supervisor starts at boot."""
    state = facts.supervisor.unit.get("UnitFileState", "")
    return judge(state not in ("enabled", ""), f"the unit is {state or 'not systemd'}", "systemctl enable supervisor")


@check_programs("programs-running")
def running(facts: Facts) -> Finding:
    """Each program in conf.d runs."""
    down = [
        one
        for one in facts.supervisor.programs
        if one.conf and one.state and one.state not in ("RUNNING", "STARTING", "STOPPING") and not one.retires
    ]
    evidence = ", ".join(f"{one.name} ({one.state})" for one in down)
    names, log = [one.name for one in down], Layout(facts.app).log
    fix = f"supervisorctl start {' '.join(names)}; look: tail -n 30 {' '.join(f'{log}/{name}.log' for name in names)}"
    return judge(bool(down), evidence or "all", fix)


@check_programs("programs-loaded")
def loaded(facts: Facts) -> Finding:
    """Supervisor knows each program in conf.d."""
    unknown = [one.name for one in facts.supervisor.programs if one.conf and not one.state]
    return judge(bool(unknown), ", ".join(unknown) or "all", f"supervisorctl update {' '.join(unknown)}, or: {DEPLOY}")


@check_programs("programs-surplus")
def surplus(facts: Facts) -> Finding:
    """Nothing runs that conf.d does not have: after a reboot it would be gone."""
    found = [one.name for one in facts.supervisor.programs if not one.conf and one.pid]
    return judge(bool(found), ", ".join(found) or "none", f"supervisorctl stop {' '.join(found)}, then: {DEPLOY}")


@check_programs("programs-recorded")
def recorded(facts: Facts) -> Finding:
    """Exactly the programs of the current deployment are in conf.d."""
    if not facts.supervisor.recorded:
        return warn("there is no record of a deployment", DEPLOY)
    there = {one.name for one in facts.supervisor.programs if one.conf and not one.retires}
    more = sorted(there - {name for names in facts.supervisor.recorded for name in names})
    less = sorted(names[0] for names in facts.supervisor.recorded if not there & {*names})
    evidence = "; ".join(
        f"{what}: {', '.join(names)}" for what, names in (("surplus", more), ("missing", less)) if names
    )
    return judge(bool(evidence), evidence or "exactly those", DEPLOY)


@check_programs("programs-heartbeat")
def heartbeat(facts: Facts) -> Finding:
    """Workers, scheduler and watchdog give signs of life."""
    late = {
        one.name: one.heartbeat
        for one in facts.supervisor.programs
        if one.state == "RUNNING" and one.heartbeat is not None and one.heartbeat > LATE
    }
    evidence = ", ".join(f"{name} ({age:.0f} s)" for name, age in late.items())
    fix = f"ansible-playbook playbooks/status.yml; supervisorctl restart {' '.join(late)}"
    return judge(bool(late), evidence or "all recent", fix)


@check_programs("programs-watchdog")
def watchdog(facts: Facts) -> Finding:
    """The watchdog runs where it has something to watch."""
    names = [one.name for one in facts.supervisor.programs if one.state == "RUNNING"]
    watched = [name for name in names if "-worker-" in name or "-scheduler-" in name]
    missing = bool(watched) and not any("-watchdog-" in name or "-health-" in name for name in names)
    return judge(missing, "it does not run" if missing else "it runs", DEPLOY)


@check_programs("pidfiles-stale")
def stale(facts: Facts) -> Finding:
    """Each pidfile names a live process."""
    dead = [f"{one.path} ({one.pid})" for one in facts.supervisor.pidfiles if not one.process]
    return judge(
        bool(dead),
        ", ".join(dead) or "none",
        "none needed: the guard removes it at the next start; or: rm FILE",
        "warn",
    )


@check_programs("pidfiles-of-others")
def of_others(facts: Facts) -> Finding:
    """No pidfile names a process of something else, which has got the same pid."""
    known = {program.pid for program in facts.supervisor.programs}  # some, such as gunicorn, give themselves a title
    wrong = [
        f"{one.path}: pid {one.pid} is {one.process[:60]}"
        for one in facts.supervisor.pidfiles
        if one.process and f"/{facts.app}/" not in one.process and one.pid not in known
    ]
    return judge(
        bool(wrong), "; ".join(wrong) or "none", "kill nothing by it; the guard removes it at the next start", "warn"
    )


@check_programs("orphans")
def orphaned(facts: Facts) -> Finding:
    """No process of the application has lost its supervisor."""
    found = facts.supervisor.orphans
    return judge(
        bool(found), "; ".join(found) or "none", "look: ps -fp PID; the watchdog ends its own; else: kill -TERM PID"
    )


@check_programs("times-stop")
def times_stop(facts: Facts) -> Finding:
    """A worker has longer to stop than its tasks may take."""
    wrong = [
        f"{one.name}: limit {limit} s, stopwaitsecs {stop_seconds(one)}"
        for one, limit in limited(facts)
        if stop_seconds(one) <= limit
    ]
    return judge(bool(wrong), "; ".join(wrong) or "time limit < stopwaitsecs", DEPLOY)


@check_programs("times-soft-limit")
def times_soft(facts: Facts) -> Finding:
    """A task is asked to end before it is ended."""
    wrong = [one.name for one, limit in limited(facts) if (option_of(one, "--soft-time-limit") or 0) >= limit]
    return judge(bool(wrong), ", ".join(wrong) or "soft limit < time limit", DEPLOY, "warn")


@check_programs("times-unlimited")
def times_unlimited(facts: Facts) -> Finding:
    """No worker runs tasks without a time limit."""
    without = [
        one.name
        for one in facts.supervisor.programs
        if "-worker-" in one.name
        and one.conf
        and option_of(one, "--time-limit") is None
        and not re.search(r"-P (solo|threads|gevent|eventlet)", one.conf)
    ]
    return judge(bool(without), ", ".join(without) or "none", f"celery_app_task_time_limit: 300, then {DEPLOY}", "warn")


@check_programs("times-unit")
def times_unit(facts: Facts) -> Finding:
    """systemd gives supervisord longer to stop than any program may take."""
    if not facts.supervisor.unit:
        return skip("no systemd")
    whole = seconds_of(facts.supervisor.unit.get("TimeoutStopUSec", ""))
    longest = max((stop_seconds(one) for one in facts.supervisor.programs if one.conf), default=0)
    return judge(
        whole <= longest, f"stopwaitsecs {longest} s, TimeoutStopSec {whole:.0f} s", f"{SITE} --tags supervisor"
    )


@check("times-consumer-timeout", "broker")
def consumer_timeout(facts: Facts) -> Finding:
    """RabbitMQ lets a task stay unacknowledged for longer than it may run."""
    if facts.broker.refused:
        return skip("RabbitMQ does not answer")
    timeout, limit = facts.broker.consumer_timeout, facts.wanted.time_limit
    if timeout is None:
        return fine("no timeout")
    return judge(timeout <= limit, f"consumer_timeout {timeout} s, longest task {limit} s", f"{SITE} --tags rabbitmq")


@check_programs("cores-of-programs")
def cores(facts: Facts) -> Finding:
    """No program writes its memory, with passwords in it, into a core file that others may read."""
    if not facts.host.core_pattern.startswith("|") and "/" in facts.host.core_pattern:
        large = [one.name for one in facts.supervisor.programs if one.core != "0"]
        fix = "systemctl edit supervisor: [Service] LimitCORE=0; then restart it in a quiet hour"
        return judge(
            bool(large), f"{len(large)} programs, to {facts.host.core_pattern}" if large else "none", fix, "warn"
        )
    return fine(f"kernel.core_pattern is {facts.host.core_pattern}")
