"""The kit itself is upgraded under load, and taken back: nothing lost, one set of programs, no leftovers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
from celery_ops.ledger import LEADER_ANSWERS, SAMPLE
from support.host import APP
from support.load import Load, Visitor
from support.wait import wait_until

RENAMED = {"celery_app_prove_command": "celery_app_check_command", "celery_app_prove_url": "celery_app_check_url"}
pytestmark = pytest.mark.timeout(1800)  # a busy machine installs the packages in ten minutes


def kinds(names: Iterable[str]) -> set[str]:
    """What programs are; the watchdog had another name."""
    return {name[:-9].replace("-health", "-watchdog") for name in names}


@pytest.fixture(scope="module")
def load(before, host) -> Iterator[Load]:
    """Numbered tasks, from before the upgrade until after the rollback."""
    load = Load(host, "upgrade", rate=15, command="celery-ops-ledger")
    wait_until(load.begun, 60, "tasks of the load")
    yield load
    host.run(f"touch {load.stop}")
    load.process.wait(150)


@pytest.fixture(scope="module")
def visitor(before, host) -> Iterator[Visitor]:
    """Visitors of the page, until after the upgrade."""
    visitor = Visitor(host)
    visitor.start()
    yield visitor
    visitor.over.set()


@pytest.fixture(scope="module")
def was(before, host) -> dict[str, object]:
    """What ran before the upgrade: release and the programs' confs."""
    wait_until(lambda: not host.amiss(), 60, f"a whole system before: {host.amiss()}")
    return {"release": host.current(), "confs": host.confs()}


def test_renamed_variables_are_named_before_anything_changes(after, host, was):
    site = after.play("site")
    assert site.rc != 0
    for old, new in RENAMED.items():
        assert f"{old} is called {new} now. Write: {new}: " in site.words, site.text[-6000:]
    assert not any(site.changed.values()), site.text[-6000:]
    assert host.confs() == was["confs"]
    after.rename(RENAMED)


def test_site_yml_takes_over_what_the_version_before_has_set_up(after, host, was, load, visitor):
    upgrade = after.play("site")
    assert upgrade.rc == 0, upgrade.text[-6000:]
    wait_until(lambda: not host.amiss(), 60, f"one set of programs: {host.amiss()}")
    assert host.current() != was["release"]
    assert kinds(host.intended()) == kinds(was["confs"])
    for name in was["confs"]:
        if "-listener-" not in name:
            assert name not in host.confs()
    assert was["release"] not in "".join(host.confs().values())


def test_a_second_run_changes_nothing_and_nobody_was_refused_so_far(after, host, visitor):
    pids = host.running()
    again = after.play("site")
    assert again.rc == 0 and not any(again.changed.values()), again.text[-6000:]
    assert host.running() == pids
    assert visitor.finish() == []
    assert visitor.asked > 50


def test_a_rollback_lands_on_what_ran_before_the_upgrade(after, host, was, load):
    back = after.play("rollback")
    assert back.rc == 0, back.text[-6000:]
    wait_until(lambda: not host.amiss(), 60, f"one set of programs: {host.amiss()}")
    assert host.current() == was["release"]
    assert host.confs() == was["confs"]


def without_consumer(samples: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    """The samples (time, consumers, waiting tasks) without a consumer, as the ledger counts them now.

    Version 0.1 also counted those for which the queue's leader was too slow to be asked.
    """
    slow = SAMPLE + LEADER_ANSWERS
    pairs = pairwise([*samples[:1], *samples])
    return [after for before, after in pairs if not after[1] and (after[2] or after[0] - before[0] < slow)]


def test_nothing_was_lost_and_nothing_waited_for_a_consumer(host, load):
    began = time.monotonic()
    numbers = load.finish()
    print(f"{numbers}; the rest took {time.monotonic() - began:.0f} s")
    assert numbers["lost"] == [], numbers
    record = json.loads(host.output(f"cat {load.file}.json"))
    assert without_consumer(record["samples"]) == [], numbers
    assert numbers["wait_max"] < 5, numbers
    assert numbers["samples"] > 100, numbers
    assert len(numbers["releases"]) == 2, numbers
    assert host.ask(f"ls -A /srv/{APP} | grep -v -E '^(current|deployments|listeners|releases|shared|venvs)$'") == "", (
        "leftovers"
    )
