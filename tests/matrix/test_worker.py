"""A worker under the guard against a real RabbitMQ and Redis: ready by its canary, round trips, a handover."""

import json
import subprocess
import sys
import time

import pytest
from support.link import Link
from support.stage import APP, clean_environment
from support.wait import wait_until

CODE = """
import time
from celery import Celery, chord
import celery_ops

app = Celery("demo")
{settings}

@app.task(name="demo.add")
def add(a, b):
    return a + b

@app.task(name="demo.total")
def total(numbers):
    return sum(numbers)

@app.task(name="demo.again", bind=True, max_retries=2, default_retry_delay=1)
def again(self):
    if not self.request.retries:
        raise self.retry()
    return self.request.retries

@app.task(name="demo.routed")
def routed():
    return "there"

def ask():
    "Print what a caller gets."
    many = [add.delay(number, 1) for number in range(50)]
    later, retried, other = add.apply_async((1, 1), countdown=1), again.delay(), routed.delay()
    fan = chord(add.s(number, number) for number in range(4))(total.s())
    print(sum(one.get(timeout=60) for one in many), later.get(timeout=60), retried.get(timeout=60),
          other.get(timeout=60), fan.get(timeout=60))
"""
GOES = """
from celery import bootsteps

class Goes(bootsteps.StartStopStep):
    "Once, the broker goes as soon as the worker is connected."
    requires = ("celery.worker.consumer.connection:Connection",)
    gone = False

    def start(self, consumer):
        if not self.gone:
            self.gone = True
            consumer.connection.collect()
            consumer.connection.port = 1

app.steps["consumer"].add(Goes)
"""
ROUTES = 'app.conf.task_routes = {"demo.routed": {"queue": "other"}}\n'
STYLES = {
    "without settings": ROUTES,
    "celery_ops.settings": 'app.config_from_object("celery_ops.settings")\n' + ROUTES,
    "celery_ops.apply": ROUTES + "app.conf.task_acks_late = False\ncelery_ops.apply(app)\n",
    "priorities": ROUTES
    + "app.conf.update(task_queue_max_priority=10, task_default_priority=5)\ncelery_ops.apply(app)\n",
}
OPTIONS = {
    "prefork": ["-c", "2", "-E", "-O", "fair", "--max-tasks-per-child", "20"],
    "autoscale": ["--autoscale", "3,1"],
    "threads": ["-P", "threads", "-c", "2"],
}


ANSWERS = ["1275", "2", "1", "there", "12"]
BACK = 30
"""Seconds within which a worker consumes again after its node is gone."""


@pytest.fixture
def broker():
    """A vhost of its own, gone afterwards."""
    rabbitmqctl = ["rabbitmqctl", "-q"]
    subprocess.run([*rabbitmqctl, "add_vhost", APP], check=True)
    subprocess.run([*rabbitmqctl, "set_permissions", "-p", APP, "guest", ".*", ".*", ".*"], check=True)
    yield f"amqp://guest:guest@127.0.0.1:5672/{APP}"
    subprocess.run([*rabbitmqctl, "delete_vhost", APP], check=True)


def application(stage, broker, style, options, more=""):
    """Write an application; return a function that runs Python beside it, and one that starts a ready worker of it."""
    (stage.directory / "demo.py").write_text(CODE.replace("{settings}", STYLES[style]) + more)
    environment = {
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": "redis://127.0.0.1:6379/0",
        "C_FORCE_ROOT": "1",
        "CELERY_OPS_STATE_DIR": str(stage.directory),
    }

    def run(*command, **others):
        env = clean_environment(**environment | others)
        done = subprocess.run(
            [sys.executable, *command], **{"cwd": stage.directory, "capture_output": True, "text": True, "env": env}
        )
        return done.stdout or done.stderr

    def start(generation):
        started = stage.worker(
            *(generation, "-l", "INFO", "-Q", "celery,other", *OPTIONS[options]), environment=environment
        )
        answer = json.loads(run(*ready(stage, generation, 60)))
        assert (answer["ready"], answer["canary"]) == (True, "run"), f"{answer}\n{started.output}"
        return started, stage.run / f"{program(generation)}.heartbeat"

    return run, start


def program(generation):
    """The name of a generation's program."""
    return f"{APP}-worker-default-{generation}"


def ready(stage, generation, timeout):
    """The command that waits until a generation is ready."""
    return [
        *("-m", "celery_ops.cli.ready", "-A", "demo", "--node", f"{program(generation)}@here"),
        *("--queues", "celery,other", "--canary-file", str(stage.run / f"{program(generation)}.canary")),
        *("--timeout", str(timeout)),
    ]


@pytest.mark.parametrize(
    ("style", "options"),
    [
        *((style, "prefork") for style in STYLES),
        ("celery_ops.settings", "autoscale"),
        ("celery_ops.settings", "threads"),
    ],
)
def test_tasks_come_back_before_and_after_a_handover(stage, broker, style, options):
    run, start = application(stage, broker, style, options)
    old, _ = start("1a2b3c4d")
    assert run("-c", "import demo; demo.ask()").split() == ANSWERS, old.output
    new, heartbeat = start("5e6f7a8b")
    assert old.stop() == 0, old.output
    assert run("-c", "import demo; demo.ask()").split() == ANSWERS, new.output
    beat = wait_until(lambda: json.loads(heartbeat.read_text()), 15, "the heartbeat")
    assert (beat["state"], beat["slots"]) == ("ready", 3 if options == "autoscale" else 2)
    assert beat["queues"] == {"celery": True, "other": True}
    assert new.stop() == 0, new.output


@pytest.fixture
def link():
    """A way to the broker that passes for a node of a cluster, and freezes."""
    link = Link(("127.0.0.1", 5672))
    yield link
    link.close()


@pytest.mark.parametrize(
    ("style", "options"),
    [
        ("celery_ops.settings", "prefork"),
        ("celery_ops.settings", "threads"),
        ("celery_ops.apply", "prefork"),
        ("without settings", "prefork"),
    ],
)
def test_a_worker_leaves_a_node_that_is_frozen_and_consumes_again(stage, broker, link, style, options):
    """The broker still has the frozen connection, and with it a control queue and a canary queue of this worker."""
    nodes = f"{broker.replace(':5672', f':{link.port}')};{broker}"
    run, start = application(stage, nodes, style, options)
    worker, _ = start("1a2b3c4d")
    link.freeze()
    frozen = time.monotonic()
    wait_until(lambda: worker.output.count("Connected to amqp://") > 1, BACK, f"another node:\n{worker.output}")
    assert run(*ready(stage, "1a2b3c4d", BACK)).startswith('{"ready": true'), worker.output
    assert time.monotonic() - frozen < BACK
    # A publisher without the kit's settings never gets beyond a first URL that is frozen.
    urls = broker if style == "without settings" else nodes
    assert run("-c", "import demo; demo.ask()", CELERY_BROKER_URL=urls).split() == ANSWERS, worker.output
    assert worker.stop() == 0, worker.output
    assert "Unrecoverable" not in worker.output


def test_a_worker_connects_again_after_a_broker_that_goes_while_it_does(stage, broker):
    """What newer kombus raise then is none of the errors after which Celery's worker connects again: it would end."""
    _, start = application(stage, broker, "without settings", "prefork", GOES)
    worker, heartbeat = start("1a2b3c4d")
    assert "Connection to broker lost" in worker.output
    # Its timer goes on.
    last = json.loads(heartbeat.read_text())["beat"]
    wait_until(lambda: json.loads(heartbeat.read_text())["beat"] > last, 20, f"the heartbeat:\n{worker.output}")
    assert worker.stop() == 0, worker.output
