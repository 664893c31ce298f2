"""Three brokers, results, scheduler and web beside the first, workers on two: the verbs work across them, none lost."""

import pytest
from support.control import play
from support.long import LONG
from support.wait import wait_until

OPEN = {"RabbitMQ": 5671, "Redis": 6379}
CLOSED = {"RabbitMQ without TLS": 5672, "management": 15672, "supervisord": 9001}
ERLANG = {"epmd": 4369, "Erlang": 25672}
ASK = "import socket; socket.create_connection(({!r}, {}), 3)"


def kinds(host):
    return {program.kind for program in host.programs()}


def test_each_host_runs_what_its_groups_say(hub, workers):
    assert kinds(hub) == {"scheduler", "web", "web-listener", "watchdog"}
    for host in workers:
        assert kinds(host) == {"worker-default", "watchdog", *(["scheduler"] if host is workers[0] else [])}
    wait_until(lambda: hub.consumers() == len(workers), 15, "a consumer on each worker host")


def test_other_hosts_reach_broker_and_results_and_nothing_else(hub, workers):
    for host in workers:
        for name, port in (OPEN | CLOSED).items():
            done = host.run(f'python3 -c "{ASK.format(hub.name, port)}"')
            assert (done.rc == 0) == (name in OPEN), f"{name} of {hub} from {host}"


def test_brokers_reach_each_other(brokers):
    for host in brokers:
        for other in brokers:
            for name, port in ERLANG.items():
                done = host.run(f'python3 -c "{ASK.format(other.address, port)}"')
                assert done.rc == 0, f"{name} of {other} from {host}"


def test_check_and_status_look_at_all_of_them(hub, workers):
    check = play("check")
    assert check.rc == 0, check.text[-3000:]
    status = play("status")
    assert status.rc == 0, status.text[-3000:]
    assert status.text.count(" running, ") >= 2, "the nodes of the cluster"
    for host in (hub, *workers):
        assert all(name in status.text for name in host.running()), status.text[-3000:]


@LONG
@pytest.mark.timeout(300)
def test_a_worker_host_that_goes_down_is_stood_in_for(hub, workers, load):
    gone = workers[1]
    # Longer than the broker may take to notice: the host is back when it is asked what it has done.
    with load(60) as said:
        gone.cut_power()
        try:
            wait_until(lambda: hub.consumers() == 1, 240, "the broker noticing")
        finally:
            gone.power_on()
    assert said[0] == 0, said[1][-3000:]
    assert " 0 lost," in said[1], said[1][-3000:]
    wait_until(lambda: hub.consumers() == len(workers), 90, "the host being back")
