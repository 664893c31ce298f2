"""The kit itself is upgraded under load, and taken back: nothing lost, one set of programs, no leftovers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lab import APP, Load, Visitor
from support.wait import wait_until

pytestmark = pytest.mark.timeout(1800)  # a busy machine installs the packages in ten minutes
# How a command ran as the application before there was one for it.
BIN = f"$(readlink -f /srv/{APP}/current/venv)/bin"
AS_APP = f"env PATH={BIN}:$PATH runuser -u {APP} -- celery-ops-env $(readlink -f /etc/{APP}/env) --"
# What has to be written into the inventory for this version: the results stay where they are.
UPGRADED = {"celery_app_result_store_database": 0}


def kinds(host) -> dict[str, str]:
    """Names of the programs in conf.d by what they are."""
    return {name[:-9]: name for name in host.intended()}


def files(host) -> dict[str, str]:
    """Every program's conf."""
    return {name: host.do(f"cat /etc/supervisor/conf.d/{name}.conf") for name in host.intended()}


def whole(host) -> bool:
    """Tells whether exactly the programs in conf.d run, of the current release, and nothing that has lost them."""
    return not host.amiss(host.intended())


@pytest.fixture(scope="module")
def load(before, host) -> Iterator[Load]:
    """Numbered tasks, from before the upgrade until after the rollback."""
    load = Load(host, "upgrade", rate=15, tasks=1_000_000, through=AS_APP)  # until it is told to stop
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
    """What ran before the upgrade: release, programs and their confs."""
    wait_until(lambda: whole(host), 60, f"a whole system before: {host.amiss(host.intended())}")
    return {"release": host.current(), "kinds": kinds(host), "files": files(host)}


def test_what_the_inventory_has_to_say_is_named_before_anything_changes(after, host, was):
    site = after.play("site")
    assert site.rc != 0
    assert "celery_app_result_store_database is not set" in " ".join(site.text.split()), site.text[-6000:]
    assert not any(site.changed.values()), site.text[-6000:]
    assert files(host) == was["files"]


def test_site_yml_takes_over_what_the_version_before_has_set_up(before, after, host, was, load, visitor):
    upgrade = after.play("site", **UPGRADED)
    assert upgrade.rc == 0, upgrade.text[-6000:]
    wait_until(lambda: whole(host), 60, "one set of programs")
    assert host.current() != was["release"]
    assert kinds(host).keys() == was["kinds"].keys()
    for kind in ("worker-default", "scheduler", "web"):
        assert kinds(host)[f"{APP}-{kind}"] != was["kinds"][f"{APP}-{kind}"]
    text = "".join(files(host).values())
    assert was["release"] not in text
    assert f"/srv/{APP}/listeners/" in text and f"/srv/{APP}/listener/" not in text
    assert host.run(f"ls -A /srv/{APP} | grep deploy.lock") == "", "the lock is in /run/celery-ops now"


def test_a_second_run_changes_nothing_and_nobody_was_refused_so_far(after, host, visitor):
    pids = host.programs()
    again = after.play("site", **UPGRADED)
    assert again.rc == 0 and not any(again.changed.values()), again.text[-6000:]
    assert host.programs() == pids
    # Only so far: the listener of that version can't take the socket over from a newer one in a rollback.
    assert visitor.finish() == []
    assert visitor.asked > 50


def test_a_rollback_lands_on_what_ran_before_the_upgrade(after, host, was, load):
    back = after.play("rollback", **UPGRADED)
    assert back.rc == 0, back.text[-6000:]
    wait_until(lambda: whole(host), 60, "one set of programs")
    assert host.current() == was["release"]
    assert files(host) == was["files"]


def test_nothing_was_lost_and_nothing_waited_for_a_consumer(host, load):
    began = time.monotonic()
    books = load.finish()
    print(f"{books}; the rest took {time.monotonic() - began:.0f} s")
    assert books["lost"] == [], books
    assert books["without_consumer"] == 0, books
    assert books["samples"] > 100, books
    assert len(books["releases"]) == 2, books
