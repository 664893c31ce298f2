"""Two schedulers: one leads, and when it fails the other goes on; no run is skipped and none is executed twice.

CELERY_OPS_FAILOVERS is how many times the leader fails, 3 by default; from the fourth on its broker's node fails, too.
"""

import itertools
import json
import os
import re
import time
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
BEGUN = time.time()
SELDOM = 20.0
"""Seconds between two runs of the entry that runs seldom; molecule/fleet/converge.yml has both."""


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
def ran():
    """What ran of an entry since the tests began, all workers together, in order."""

    def of(entry="often"):
        texts = [host.ask(f"cat /var/lib/{APP}/ran-{entry}") for host in hosts_of("worker")]
        runs = (json.loads(line) for text in texts for line in text.splitlines() if line.endswith("]"))
        return sorted(run for run in runs if run[0] >= BEGUN)

    return of


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


def orders(runs):
    """Which run of the entry each message was, in the order in which the workers had them."""
    return [int(number.split()[-1]) for _, _, number in runs if number]


def sent_twice(runs):
    """Runs of which two messages were executed; one that is delivered again, its worker being cut off, is one."""
    messages = {(task_id, number) for _, task_id, number in runs}
    return [task_id for task_id, count in Counter(task_id for task_id, _ in messages).items() if count > 1]


@pytest.mark.timeout(120 + 90 * FAILOVERS)
def test_the_other_goes_on_when_the_leader_fails(schedulers, ran):
    took, first = [], max(orders(ran()))
    for number, fault in enumerate(itertools.islice(itertools.cycle(FAULTS), FAILOVERS)):
        before = wait_until(lambda: leader_of(schedulers), 60, f"one leader and a standby before fault {number}")
        if fault is cut and "rabbitmq" in groups_of(before):
            fault = kill  # with the broker's host the test would cut off the broker
        by, since = f" {pid_of(before)} ", time.time()
        undo = fault(before)
        try:
            runs = wait_until(
                lambda by=by, since=since: [at for at, _, sender in ran() if at > since and by not in sender],
                2 * TAKEOVER,
                f"a run after {fault.__name__}",
            )
            took.append((fault.__name__, round(runs[0] - since, 1)))
        finally:
            undo()
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    print(took)
    assert max(seconds for _, seconds in took) <= TAKEOVER, took
    assert sent_twice(ran()) == [], "both were executed"
    last = max(orders(ran()))
    wait_until(lambda: set(orders(ran())) >= set(range(first, last + 1)), 20, "the runs that are missing")


def groups_of(host):
    platforms = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"]
    return next(platform["groups"] for platform in platforms if platform["name"] == host.name)


def moments(host, what):
    """When Supervisor has said this on a host, in its words."""
    lines = host.output("cat /var/log/supervisor/supervisord.log").splitlines()
    return [line.partition(" INFO")[0] for line in lines if what in line]


def handed_over(schedulers, before):
    """The programs of schedulers, handed over: all of the new ones had started before one of the old ones stopped."""
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    after = {host: host.program("scheduler").name for host in schedulers}
    started = [moments(host, f"spawned: '{name}'")[-1] for host, name in after.items()]
    stopped = [moments(host, f"stopped: {name} ")[-1] for host, name in before.items()]
    assert max(started) < min(stopped), (started, stopped)
    return after


@pytest.mark.timeout(420)
def test_a_deploy_and_a_rollback_lose_and_double_nothing_and_the_new_schedulers_stand_by_first(
    workers, schedulers, ran, variants, load
):
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    first = {host: host.program("scheduler").name for host in schedulers}
    generation = {host: host.workers().keys() for host in workers}
    since = time.time()
    with load(60) as said:
        deployed(celery_app_source=str(variants.make("second")))
        assert all(host.workers().keys() != generation[host] for host in workers)
        second = handed_over(schedulers, first)
        back = play("rollback")
        assert back.rc == 0, back.text[-3000:]
        assert handed_over(schedulers, second) == first
    assert said[0] == 0, said[1][-3000:]
    assert re.search(r"confirmed: 0 lost, 0 doubled,.* 0 of \d+ samples without a consumer", said[1]), said[1][-3000:]
    for host in workers:
        wait_until(lambda host=host: host.workers().keys() == generation[host], 20, f"the old generation on {host}")
    runs = [one for one in ran() if one[0] >= since]
    assert sent_twice(runs) == []
    gap = max(later[0] - earlier[0] for earlier, later in itertools.pairwise(runs))
    assert gap <= 1.0 + NOTICED, "the old leader returns the lease"


def intervals(runs):
    """The seconds between runs of an entry."""
    return [round(later[0] - earlier[0], 1) for earlier, later in itertools.pairwise(runs)]


@LONG
@pytest.mark.timeout(600)
def test_from_several_to_one_and_back_no_run_is_skipped_and_none_comes_early(schedulers, ran, regrouped):
    """The one that stays has stood by, so that its own file knows of no run.

    It is alone for longer than an entry's interval: what the lease told of before would make that entry due at once.
    """
    wait_until(lambda: ran("seldom"), 2 * SELDOM, "a run of the entry that runs seldom")
    leader = wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    [alone] = [host for host in schedulers if host is not leader]
    since = time.time()
    one = regrouped(scheduler=[alone])("deploy")
    assert one.rc == 0, one.text[-4000:]
    assert (states(leader), states(alone)) == ([], ["ready"])
    known = len(ran("seldom"))
    wait_until(lambda: len(ran("seldom")) >= known + 2, 3 * SELDOM, "it alone schedules")
    deployed()
    wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    known = len(ran("seldom"))
    wait_until(lambda: len(ran("seldom")) >= known + 1, 2 * SELDOM, "several schedule again")
    often = [one for one in ran() if one[0] >= since]
    seldom = intervals(one for one in ran("seldom") if one[0] >= since - SELDOM)
    print(f"every second: at most {max(intervals(often))} s between two; every {SELDOM:g} s: {seldom}")
    assert sent_twice(often) == []
    assert max(intervals(often)) <= 1.0 + NOTICED
    # A worker begins a task within a second or two.
    assert min(seldom) >= SELDOM - 4, "an entry was due at once"
    assert max(seldom) <= SELDOM + NOTICED + 4, "a run was skipped"


def test_the_status_names_the_leader(schedulers, ran):
    leading = wait_until(lambda: leader_of(schedulers), 60, "one leader and a standby")
    [other] = [host for host in schedulers if host is not leading]

    def said():
        status = play("status", status_exit=False)
        assert status.rc == 0, status.text[-3000:]
        return f"leader: {leading.program('scheduler').name} on {leading.name}" in status.text and (
            f"standby: {other.program('scheduler').name} on {other.name}" in status.text
        )

    wait_until(said, 60, "the leader and the standby in the status")
