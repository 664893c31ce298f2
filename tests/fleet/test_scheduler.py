"""Two schedulers: one leads, and when it fails the other goes on; no run is skipped and none is executed twice.

CELERY_OPS_FAILOVERS is how many times the leader fails, 3 by default; from the fourth on its broker's node fails, too.
"""

import itertools
import json
import os
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest
import yaml
from support.cluster import await_whole, leads_from
from support.control import deployed, play
from support.host import APP, scenario_hosts
from support.long import LONG
from support.wait import wait_until

FAILOVERS = int(os.environ.get("CELERY_OPS_FAILOVERS", "3"))
TAKEOVER = 20.0
"""Seconds until the other scheduler leads."""
NOTICED = 8.0
"""Seconds after which RabbitMQ gives the lease of a leader away that is gone and has not returned it."""
# Of this session alone: hosts that are tested again have the runs of the one before.
RAN = f"/var/lib/{APP}/ran-{uuid.uuid4().hex}"
SELDOM = 20.0
"""Seconds between two runs of the entry that runs seldom."""
EVERY_SECOND = f"""
import json, time


@app.task(name="petct.scheduled", bind=True, ignore_result=True)
def scheduled(self, which):
    # A scheduler that is alone gives no number.
    with open("{RAN}" + which, "a") as file:
        file.write(json.dumps([time.time(), self.request.id, self.request.get("celery_ops_tick") or ""]) + "\\n")


for which, schedule in (("", 1.0), ("-seldom", {SELDOM})):
    entry = {{"task": "petct.scheduled", "schedule": schedule, "args": (which,), "options": {{"expires": 60}}}}
    app.conf.beat_schedule["every-second" + which] = entry
"""


def hosts_of(group):
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    names = {platform["name"] for platform in platforms if group in platform["groups"]}
    return [host for host in scenario_hosts() if host.name in names]


@pytest.fixture(scope="module")
def schedulers():
    found = hosts_of("scheduler")
    if len(found) < 2:
        pytest.skip("the scenario has one scheduler")
    return found


@pytest.fixture(scope="module")
def every_second(schedulers, variants):
    """The application with an entry of every second; returns what ran, all workers together, in order."""
    deployed(celery_app_source=str(variants.make("every-second", {"petct/celery.py": EVERY_SECOND})))

    def ran(which=""):
        lines = [line for host in hosts_of("worker") for line in host.ask(f"cat {RAN}{which}").splitlines()]
        return sorted(json.loads(line) for line in lines if line.endswith("]"))

    wait_until(ran, 30, "the first run")
    return ran


def states(host):
    """The schedulers' heartbeats on a host, of the processes that run."""
    pids, found = set(host.running().values()), []
    for line in host.ask(f"cat /run/{APP}/{APP}-scheduler-*.heartbeat").splitlines():
        beat = json.loads(line)
        if beat["pid"] in pids:
            found.append(beat["state"])
    return found


def leader_of(schedulers):
    """The host whose scheduler leads while the others stand by; None while that is not so."""
    found = {host: states(host) for host in schedulers}
    leading = [host for host, states in found.items() if states == ["ready"]]
    standing_by = [host for host, states in found.items() if states == ["standby"]]
    return leading[0] if (len(leading), len(standing_by)) == (1, len(schedulers) - 1) else None


def pid_of(host):
    return host.program("scheduler").pid


def kill(host):
    host.output(f"kill -KILL {pid_of(host)}")
    return lambda: None


def freeze(host):
    """The watchdog would wake it after 6 s: it is frozen as well."""
    pids = f"{pid_of(host)} {host.program('watchdog').pid}"
    host.output(f"kill -STOP {pids}")
    return lambda: host.run(f"kill -CONT {pids}")


def cut(host):
    host.cut_off()
    return host.connect


def kill_its_node(host):
    """SIGKILL of the broker's node that the leader is connected to; systemd starts it again."""
    brokers = hosts_of("rabbitmq")
    leads_from(host, brokers).output("pkill -KILL -u rabbitmq beam.smp")
    return lambda: await_whole(brokers)


FAULTS = (kill, freeze, cut, kill_its_node)


def orders(ran):
    """Which run of the entry each message was, in the order in which the workers had them."""
    return [int(number.split()[-1]) for _, _, number in ran if number]


def sent_twice(ran):
    """Runs of which two messages were executed; one that is delivered again, its worker being cut off, is one."""
    messages = {(task_id, number) for _, task_id, number in ran}
    return [task_id for task_id, count in Counter(task_id for task_id, _ in messages).items() if count > 1]


@pytest.mark.timeout(120 + 90 * FAILOVERS)
def test_the_other_goes_on_when_the_leader_fails(schedulers, every_second):
    took, first = [], max(orders(every_second()))
    for number, fault in enumerate(itertools.islice(itertools.cycle(FAULTS), FAILOVERS)):
        before = wait_until(lambda: leader_of(schedulers), 60, f"one leader and a standby before fault {number}")
        if fault is cut and "rabbitmq" in groups_of(before):
            fault = kill  # with the broker's host the test would cut off the broker
        by, since = f" {pid_of(before)} ", time.time()
        undo = fault(before)
        try:
            runs = wait_until(
                lambda by=by, since=since: [at for at, _, sender in every_second() if at > since and by not in sender],
                2 * TAKEOVER,
                f"a run after {fault.__name__}",
            )
            took.append((fault.__name__, round(runs[0] - since, 1)))
        finally:
            undo()
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    print(took)
    assert max(seconds for _, seconds in took) <= TAKEOVER, took
    ran = every_second()
    assert sent_twice(ran) == [], "both were executed"
    last = max(orders(ran))
    wait_until(lambda: set(orders(every_second())) >= set(range(first, last + 1)), 20, "the runs that are missing")


def groups_of(host):
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return next(platform["groups"] for platform in platforms if platform["name"] == host.name)


def moments(host, what):
    """When Supervisor has said this on a host, in its words."""
    lines = host.output("cat /var/log/supervisor/supervisord.log").splitlines()
    return [line.partition(" INFO")[0] for line in lines if what in line]


@pytest.mark.timeout(300)
def test_a_deploy_lets_the_new_ones_stand_by_first(schedulers, every_second, variants):
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    before = {host: host.program("scheduler").name for host in schedulers}
    since = time.time()
    deployed(
        celery_app_source=str(variants.make("every-second", {"petct/celery.py": EVERY_SECOND})),
        celery_scheduler_options=["--max-interval", "30"],
    )
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    after = {host: host.program("scheduler").name for host in schedulers}
    started = [moments(host, f"spawned: '{name}'")[0] for host, name in after.items()]
    stopped = [moments(host, f"stopped: {name} ")[-1] for host, name in before.items()]
    assert max(started) < min(stopped), (started, stopped)
    ran = [one for one in every_second() if one[0] >= since]
    assert sent_twice(ran) == []
    gap = max(later[0] - earlier[0] for earlier, later in itertools.pairwise(ran))
    assert gap <= 1.0 + NOTICED, "the old leader returns the lease"


def intervals(ran):
    """The seconds between runs of an entry."""
    return [round(later[0] - earlier[0], 1) for earlier, later in itertools.pairwise(ran)]


@LONG
@pytest.mark.timeout(600)
def test_from_several_to_one_and_back_no_run_is_skipped_and_none_comes_early(
    schedulers, every_second, variants, regrouped
):
    """The one that stays has stood by, so that its own file knows of no run.

    It is alone for longer than an entry's interval: what the lease told of before would make that entry due at once.
    """
    source = {"celery_app_source": str(variants.make("every-second", {"petct/celery.py": EVERY_SECOND}))}
    wait_until(lambda: every_second("-seldom"), 2 * SELDOM, "a run of the entry that runs seldom")
    leader = wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    [alone] = [host for host in schedulers if host is not leader]
    since = time.time()
    one = regrouped(scheduler=[alone])("deploy", **source)
    assert one.rc == 0, one.text[-4000:]
    assert (states(leader), states(alone)) == ([], ["ready"])
    known = len(every_second("-seldom"))
    wait_until(lambda: len(every_second("-seldom")) >= known + 2, 3 * SELDOM, "it alone schedules")
    deployed(**source)
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    known = len(every_second("-seldom"))
    wait_until(lambda: len(every_second("-seldom")) >= known + 1, 2 * SELDOM, "several schedule again")
    often = [one for one in every_second() if one[0] >= since]
    seldom = intervals(one for one in every_second("-seldom") if one[0] >= since - SELDOM)
    print(f"every second: at most {max(intervals(often))} s between two; every {SELDOM:g} s: {seldom}")
    assert sent_twice(often) == []
    assert max(intervals(often)) <= 1.0 + NOTICED
    # A worker begins a task within a second or two.
    assert min(seldom) >= SELDOM - 4, "an entry was due at once"
    assert max(seldom) <= SELDOM + NOTICED + 4, "a run was skipped"


def test_the_status_names_the_leader(schedulers, every_second):
    leading = wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    [other] = [host for host in schedulers if host is not leading]

    def said():
        status = play("status", status_exit=False)
        assert status.rc == 0, status.text[-3000:]
        return f"leader: {leading.program('scheduler').name} on {leading.name}" in status.text and (
            f"standby: {other.program('scheduler').name} on {other.name}" in status.text
        )

    wait_until(said, 60, "the leader and the standby in the status")
