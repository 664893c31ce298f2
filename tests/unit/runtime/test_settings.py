import json
import subprocess
import sys

import pytest
from celery_ops.worker import versions
from support.stage import clean_environment


def in_fresh_python(code, **environment):
    """Settings are read at import, so each test is a process of its own; `code` prints JSON."""
    return subprocess.run(
        [sys.executable, "-c", f"import json, celery\napp = celery.Celery('demo')\n{code}"],
        capture_output=True,
        text=True,
        env=clean_environment(**environment),
    )


def ask(code, **environment):
    done = in_fresh_python(f"app.config_from_object('celery_ops.settings')\n{code}", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_app_without_django_takes_them():
    names = [
        "task_acks_late",
        "task_default_queue",
        "broker_url",
        "result_backend",
    ]
    assert ask(
        f"print(json.dumps([getattr(app.conf, name) for name in {names}]))",
        CELERY_BROKER_URL="amqp://there",
        CELERY_RESULT_BACKEND="redis://there",
        CELERY_OPS_DEFAULT_QUEUE="petct",
    ) == [True, "petct", "amqp://there", "redis://there"]


@pytest.mark.parametrize(
    ("environment", "client"),
    [
        (
            {"CELERY_OPS_PROGRAM": "demo-worker-x-0a1b2c3d", "CELERY_OPS_HOST": "w.example"},
            "demo-worker-x-0a1b2c3d on w.example",
        ),
        ({"CELERY_OPS_HOST": "w.example"}, None),
        ({"CELERY_OPS_PROGRAM": "demo-web-0a1b2c3d"}, None),
    ],
)
def test_a_program_names_its_connections_and_a_command_does_not(environment, client):
    code = """
with app.connection_for_write() as one:
    sent = one.transport.Connection(**one.transport_options, host="x").client_properties
print(json.dumps(sent.get("connection_name")))
"""
    assert ask(code, CELERY_BROKER_URL="amqp://x", **environment) == client


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.skipif(setting in versions.missing_settings(), reason="needs a newer Celery")
        )
        for name, setting in [("petct", "task_default_queue_type"), ("another", "task_create_missing_queue_type")]
    ],
)
def test_every_queue_is_quorum_on_a_topic_exchange_of_its_own_name(name):
    code = f"q = app.amqp.queues['{name}']\nprint(json.dumps([q.exchange.name, q.exchange.type, q.queue_arguments]))"
    assert ask(code, CELERY_OPS_DEFAULT_QUEUE="petct") == [name, "topic", {"x-queue-type": "quorum"}]


@pytest.mark.parametrize(("limit", "soft"), [("300", 270), ("100", 90), ("5", 4), ("2", 1), ("3600", 3570)])
def test_soft_limit_follows(limit, soft):
    code = "print(json.dumps([app.conf.task_time_limit, app.conf.task_soft_time_limit]))"
    assert ask(code, CELERY_OPS_TASK_TIME_LIMIT=limit) == [int(limit), soft]


@pytest.mark.parametrize("limit", ["1", "-5", "ten", "1.5"])
def test_senseless_limit_names_the_variable(limit):
    done = in_fresh_python(
        "app.config_from_object('celery_ops.settings'); app.conf.task_time_limit",
        CELERY_OPS_TASK_TIME_LIMIT=limit,
    )
    assert done.returncode != 0
    assert f"CELERY_OPS_TASK_TIME_LIMIT is '{limit}'" in done.stderr


@pytest.mark.parametrize("queue", ["", "mail"])
def test_the_tick_joins_the_apps_own_schedule(queue):
    code = (
        "app.conf.update(beat_schedule={'mine': {'task': 'a', 'schedule': 60}})\n"
        "app.conf.timezone\napp.finalize()\nprint(json.dumps(app.conf.beat_schedule))"
    )
    schedule = ask(code, CELERY_OPS_APP="petct", CELERY_OPS_TICK_QUEUE=queue)
    assert schedule.keys() == {"mine", "celery-ops-tick"}
    tick = schedule["celery-ops-tick"]
    assert (tick["task"], tick["schedule"]) == ("celery_ops.tick", 15)
    # An id of its own each time: a worker that drops one tick as expired would refuse the id from then on.
    assert tick["options"] == {"expires": 60, "ignore_result": True, **({"queue": queue} if queue else {})}


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ("['a', 'b']", "a"),
        ("['a', 'celery']", None),
        ("[]", None),
        ("{'a': {'exchange': 'a'}}", "a"),
        ("[Broadcast('news'), 'b']", "b"),
        ("map(Queue, ['a', 'b'])", "a"),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_the_tick_goes_to_a_queue_that_is_consumed_where_the_default_one_is_not(queues, expected, early):
    apply = "import celery_ops; celery_ops.apply(app)\n"
    code = (
        (apply if early else "")
        + f"from kombu import Queue\nfrom kombu.common import Broadcast\nqueues = {queues}\n"
        + "made = lambda: [Queue(one) if isinstance(one, str) else one for one in queues]\n"
        + "app.conf.task_queues = made() if isinstance(queues, list) else queues\n"
        + ("" if early else apply)
        + "app.conf.timezone\napp.finalize()\nprint(json.dumps([app.conf.beat_schedule, list(app.amqp.queues)]))"
    )
    schedule, names = json.loads(in_fresh_python(code).stdout)
    assert schedule["celery-ops-tick"]["options"].get("queue") == expected
    assert names, "what the application declares is still there for Celery"


def test_tick_and_tasks_also_come_late_and_one_app_does_not_touch_another():
    code = (
        "from celery_ops.tasks import tick_id\napp.finalize(); app.conf.task_acks_late\n"
        "other = celery.Celery('other'); other.finalize()\n"
        "print(json.dumps([sorted(n for n in app.tasks if n.startswith('celery_ops')),"
        " [tick_id(a) for a in (app, other) if 'celery-ops-tick' in a.conf.beat_schedule]]))"
    )
    assert ask(code) == [
        ["celery_ops.canary", "celery_ops.echo", "celery_ops.ledger", "celery_ops.tick"],
        ["celery-ops-tick-demo", "celery-ops-tick-other"],
    ]


def test_canary_writes_its_own_file_only(tmp_path):
    code = "app.conf.timezone; app.tasks['celery_ops.canary']('token'); print('{}')"
    assert ask(code, CELERY_OPS_CANARY_FILE=str(tmp_path / "node.canary")) == {}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"node.canary": "token"}
    done = in_fresh_python("import celery_ops.tasks; app.finalize(); app.tasks['celery_ops.canary']('token')")
    assert "not started by celery-ops-guard" in done.stderr


needs_acks_on_failure = pytest.mark.skipif(
    versions.installed("celery") < versions.ACKS_ON_FAILURE, reason="needs a newer Celery"
)


@needs_acks_on_failure
@pytest.mark.parametrize(("environment", "rejected"), [({}, False), ({"CELERY_OPS_KEEP_FAILED": "1"}, True)])
def test_failed_tasks_are_rejected_only_if_that_is_asked_for(environment, rejected):
    code = (
        "@app.task\ndef t(): pass\napp.finalize()\n"
        "print(json.dumps([t.acks_on_failure, t.acks_on_timeout, t.store_errors_even_if_ignored]))"
    )
    assert ask(code, **environment) == [not rejected, True, rejected]


def test_an_older_celery_that_can_not_keep_failed_tasks_is_refused():
    code = "from celery_ops.worker import versions\nversions.ACKS_ON_FAILURE = (99,)\nimport celery_ops.settings"
    done = in_fresh_python(code, CELERY_OPS_KEEP_FAILED="1")
    assert done.returncode != 0 and "celery_app_keep_failed needs Celery 5.7" in done.stderr
