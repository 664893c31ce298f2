"""How a worker follows the nodes of a cluster, without a broker; with one: tests/matrix, tests/fleet."""

import json
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from amqp.exceptions import NotFound, PreconditionFailed
from celery import Celery
from celery.app import trace
from celery.app.defaults import DEFAULTS
from celery_ops import probe
from celery_ops.errors import RetryLater
from celery_ops.worker import failover, heartbeat
from kombu.exceptions import OperationalError
from kombu.utils.imports import symbol_by_name
from support.stage import clean_environment
from support.wait import wait_until

URLS = ["memory://one", "memory://two", "memory://three"]


@pytest.fixture
def app(monkeypatch):
    monkeypatch.delenv("CELERY_BROKER_URL", raising=False)
    # It makes the worker's application that of the whole process, also of later tests.
    monkeypatch.setattr(trace, "setup_worker_optimizations", lambda *_: None)
    return Celery("demo", broker=";".join(URLS), set_as_current=False)


@pytest.fixture
def consumer(app):
    """A worker's consumer before its first step, with the kit's step among its steps."""
    worker = app.Worker(pool="solo", hostname="demo@here", without_mingle=True, without_gossip=True)
    if "Failover" not in {step.__name__ for step in app.steps["consumer"] if isinstance(step, type)}:
        failover._add_step(worker)
    make = symbol_by_name(worker.consumer_cls)
    return make(lambda _: None, hostname=worker.hostname, app=app, controller=worker, timer=worker.timer)


def hosts(urls):
    return [url.rpartition("/")[2] for url in urls.split(";")]


def test_connections_begin_with_the_node_that_the_worker_is_connected_to(app):
    nodes = failover.Nodes(app, URLS)
    nodes.connected_to(app.connection_for_read(URLS[1]))
    assert hosts(app.conf.broker_read_url) == hosts(app.conf.broker_write_url) == ["two", "three", "one"]
    nodes.connected_to(app.connection_for_read("memory://elsewhere"))
    assert hosts(app.conf.broker_read_url) == ["two", "three", "one"]


def test_a_worker_leaves_a_node_it_has_lost(app, consumer):
    with consumer.connect() as connection:
        assert connection.hostname == "one"
    with consumer.connect() as connection:
        assert connection.hostname == "two", "the first one is asked last"
    assert hosts(app.conf.broker_write_url) == ["two", "three", "one"]


def test_what_a_worker_publishes_goes_over_new_connections_after_a_loss(app, consumer):
    consumer.connect().close()
    before = app.pool, app.amqp.producer_pool, app.control.mailbox.producer_pool
    consumer.connect().close()
    after = app.pool, app.amqp.producer_pool, app.control.mailbox.producer_pool
    assert all(new is not old for new, old in zip(after, before, strict=True))
    assert after[0].connection.hostname == "two"


def test_delayed_delivery_is_set_up_at_that_node_alone(consumer):
    class DelayedDelivery:  # Celery has it since 5.5, and in a worker with quorum queues
        pass

    consumer.steps.append(step := DelayedDelivery())
    consumer.connect().close()
    assert step._validate_broker_urls(";".join(URLS)) == {URLS[0]}


@pytest.mark.parametrize(
    ("set_by_app", "seconds"), [(DEFAULTS["broker_heartbeat"], failover.HEARTBEAT), (30, 30), (0, 0)]
)
def test_a_worker_hears_soon_of_a_node_that_is_silent(app, consumer, set_by_app, seconds):
    consumer.amqheartbeat = set_by_app
    failover.follow(consumer, failover.Nodes(app, URLS))
    assert consumer.amqheartbeat == seconds


def test_a_control_queue_goes_with_its_connection_and_has_another_name_each_time(app, consumer):
    queues = [app.control.mailbox.get_queue("demo@here") for _ in range(2)]
    assert all(queue.exclusive and not queue.durable for queue in queues)
    assert queues[0].name != queues[1].name
    assert all(queue.name.startswith("demo@here.") and queue.name.endswith(".celery.pidbox") for queue in queues)


@pytest.mark.parametrize("urls", ["memory://one", ""])
def test_with_one_url_nothing_is_different(urls):
    app = Celery("demo", broker=urls or None, set_as_current=False)
    failover._add_step(app.Worker(pool="solo", hostname="demo@here"))
    assert app.control.mailbox.get_queue("demo@here").name == "demo@here.celery.pidbox"


HOME = "NOT_FOUND - home node 'rabbit@one' of durable queue 'shop' in vhost 'shop' is down or inaccessible"


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (OperationalError("[Errno 111] Connection refused"), ConnectionResetError),
        (NotFound(HOME, (50, 10), "queue_declare", 404), ConnectionResetError),
        (NotFound("NOT_FOUND - no queue 'shop' in vhost 'shop'", (50, 10), "queue_declare", 404), NotFound),
        (PreconditionFailed("inequivalent arg 'x-queue-type'", (50, 10), "queue_declare", 406), PreconditionFailed),
        (ValueError("of the application"), ValueError),
    ],
)
def test_what_says_that_the_broker_is_away_makes_the_worker_connect_again(raised, arrives):
    def start(_):
        raise raised

    consumer = SimpleNamespace(blueprint=SimpleNamespace(start=start), channel_errors=(NotFound, PreconditionFailed))
    failover.outlive_the_broker(consumer)
    with pytest.raises(arrives):
        consumer.blueprint.start(consumer)


def test_the_watchdog_is_told_of_every_node():
    app = Celery("demo", broker="amqp://u:secret@one;amqp://u:secret@two:5673//", set_as_current=False)
    assert heartbeat.address(app) == "amqp://one:5672;amqp://two:5673"


def test_a_process_that_starts_while_the_first_node_is_frozen_asks_the_next():
    """Publishers, too: without the kit's settings kombu gives up after the first URL, each time."""
    with socket.create_server(("127.0.0.1", 0)) as frozen, socket.create_server(("127.0.0.1", 0)) as second:
        asked = threading.Event()

        def accept():
            second.accept()[0].close()
            asked.set()

        threading.Thread(target=accept, daemon=True).start()
        ports = [one.getsockname()[1] for one in (frozen, second)]
        code = (
            "from celery import Celery; app = Celery('demo'); app.config_from_object('celery_ops.settings')\n"
            "app.send_task('demo.add')"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=clean_environment(CELERY_BROKER_URL=";".join(f"amqp://u:p@127.0.0.1:{port}//" for port in ports)),
        )
        try:
            wait_until(asked.is_set, 30, "the second node being asked")
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(("url", "exclusive", "heard"), [("amqp://one", False, 10), ("amqp://one;amqp://two", True, 5)])
def test_waits_are_short_where_another_node_can_be_asked(url, exclusive, heard):
    code = (
        "import json; from celery_ops import settings as s;"
        "print(json.dumps([getattr(s, 'control_queue_exclusive', None), s.broker_transport_options['read_timeout']]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        **{"capture_output": True, "text": True, "env": clean_environment(CELERY_BROKER_URL=url)},
    )
    found = json.loads(said.stdout or said.stderr)
    assert found in ([exclusive, heard], [None, heard])  # None: a Celery that does not know it


def test_a_probe_whose_connection_is_lost_asks_again_over_another(app):
    connections = []

    def ask(connection):
        connections.append(connection)
        if len(connections) < 3:
            raise OperationalError("the node is gone")

    probe.while_connected(app, probe.Deadline(30), {}, ask)
    assert len(connections) == 3
    with pytest.raises(RetryLater, match="the connection to the broker was lost: the node is gone"):
        probe.while_connected(app, probe.Deadline(0), {}, lambda _: ask(connections.clear()))
