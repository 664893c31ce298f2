"""The inventory's groups say what a host runs: what it has left is named, then removed; another broker is refused."""

from __future__ import annotations

import pytest
from support.control import deployed
from support.long import LONG
from support.wait import wait_until


@LONG
@pytest.mark.timeout(600)
def test_a_host_that_has_left_the_group_keeps_no_worker(hub, workers, regrouped):
    stays, leaves = workers[1], workers[0]
    [worker] = leaves.workers()
    play, before = regrouped(worker=[stays]), stays.workers()
    named = play("status", hub)
    assert f"{worker} on {leaves.name} (connected from " in named.words, named.text[-4000:]
    assert f"{leaves.name} is not in the group worker. Remove it: ansible-playbook" in named.words
    try:
        left = play("deploy")
        assert left.rc == 0, left.text[-4000:]
        assert leaves.workers() == {}
        assert stays.workers() == before
        wait_until(lambda: hub.consumers() == 1, 60, "the consumers of the host that stays")
        assert "takes tasks" not in play("status", hub).words
        assert play("deploy").changed.get(leaves.name) == 0
    finally:
        deployed()
    assert len(leaves.workers()) == 1
    assert stays.workers() == before


@pytest.mark.timeout(300)
def test_another_broker_is_refused_before_anything_changes(hub, workers, brokers, regrouped):
    other = next(host for host in workers if host not in brokers)
    refused = regrouped(rabbitmq=[other])("site")
    assert refused.rc != 0, refused.text[-3000:]
    assert f"rabbitmq_move.yml -e rabbitmq_move_from={hub.name}" in refused.words, refused.text[-3000:]
    assert "-e preflight_leave_services=true" in refused.words
    assert not any(refused.changed.values()), refused.changed
