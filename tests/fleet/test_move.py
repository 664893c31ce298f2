"""An application moves to another broker under load and back, across the versions of RabbitMQ: no task is lost.

From the cluster (Debian 13, RabbitMQ 4.0) to a host with Debian 12, then from its RabbitMQ 3.10 to the cluster: the way
of an upgrade of Debian.
"""

from __future__ import annotations

import pytest
from support.control import deployed
from support.host import APP
from support.load import Load, reconciled
from support.long import LONG
from support.wait import wait_until


def version(host):
    """The version of a host's RabbitMQ, as 3.10."""
    return ".".join(host.output("dpkg-query --show --showformat '${Version}' rabbitmq-server").split(".")[:2])


def vhosts(host):
    return host.output("rabbitmqctl -q list_vhosts").split()


@LONG
@pytest.mark.timeout(2400)
def test_an_application_moves_to_another_broker_and_back(hub, workers, brokers, regrouped):
    debian12 = next(host for host in workers if host not in brokers)
    one_scheduler = {"scheduler": [hub]}
    single = regrouped(**one_scheduler)("deploy")
    assert single.rc == 0, single.text[-4000:]
    there = regrouped(rabbitmq=[debian12], **one_scheduler)
    back = regrouped(**one_scheduler)
    for play, old, new in ((there, hub, debian12), (back, debian12, hub)):
        load = Load(workers[0], f"away-from-{old.name}", rate=15)
        wait_until(load.begun, 60, "tasks of the load")
        move = play("rabbitmq_move", rabbitmq_move_from=old.name)
        assert move.rc == 0, move.text[-6000:]
        assert f"is being moved to this broker from {old.name}" in play("status", status_exit=False).words
        # Its publisher has been at the old broker all the time: what it publishes there follows.
        numbers = reconciled(load, workers, patience=60)
        print(f"RabbitMQ {version(old)} to {version(new)}: {numbers}")
        assert numbers["lost"] == [], numbers
        assert numbers["confirmed"] > 300, numbers
        confirm = play("rabbitmq_move", rabbitmq_move_from=old.name, rabbitmq_move_confirm="yes")
        assert confirm.rc == 0, confirm.text[-6000:]
        assert APP not in vhosts(old)
        assert APP in vhosts(new)
    assert (version(debian12), version(hub)) == ("3.10", "4.0")
    deployed()
