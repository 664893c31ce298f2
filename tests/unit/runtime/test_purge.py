"""celery-ops-dead-letters purge: what a moved message is, and which queues may be emptied."""

from datetime import UTC, datetime

import pytest
from amqp import Message
from celery_ops.cli import dead_letters
from celery_ops.cli.dead_letters import PURGED, DeadTask, no_queue_of, purged, revived
from celery_ops.errors import OperatorError, PermanentError

DELAYED = {"queue": "celery_delayed_3", "reason": "expired", "time": datetime(2026, 1, 1)}


def test_a_moved_message_says_where_it_came_from_does_not_expire_and_is_whole_again_when_replayed():
    sent = Message(
        b"body", application_headers={"task": "shop.add", "x-death": [DELAYED]}, expiration="60000", priority=3
    )
    moved = purged(sent, "shop")
    assert (moved.body, moved.properties["priority"], moved.properties["delivery_mode"]) == (b"body", 3, 2)
    assert "expiration" not in moved.properties
    dead = DeadTask.read(1, moved.properties)
    assert (dead.task, dead.reason, dead.queue) == ("shop.add", "purged", "shop")
    assert abs((datetime.now(UTC) - dead.died).total_seconds()) < 60
    assert revived(moved).properties["application_headers"] == {"task": "shop.add"}


def test_a_header_of_that_name_from_somebody_else_harms_nothing():
    assert DeadTask.read(1, {"application_headers": {PURGED: "yes", "x-death": [DELAYED]}}).reason == "expired"


@pytest.mark.parametrize(
    ("queue", "why"),
    [
        ("shop.dead", "is the dead queue itself"),
        ("celery_delayed_3", "is a queue of Celery, RabbitMQ or the kit"),
        ("shop@w1.celery.pidbox", "is a queue of Celery, RabbitMQ or the kit"),
        ("photos", "is not a queue of this application. It has: mail, shop"),
        ("shop", ""),
        ("mail", ""),
    ],
)
def test_only_the_applications_own_queues(queue, why, monkeypatch):
    monkeypatch.setattr(dead_letters, "queues_of", lambda app: {"mail"})
    said = no_queue_of("shop", queue, "shop.dead", ["shop"])
    assert (said == "") is (why == "") and why in said


@pytest.mark.parametrize(("error", "moved"), [(PermanentError("no queue"), False), (OperatorError("no broker"), True)])
def test_what_is_refused_before_it_begins_is_not_told_as_a_half_done_purge(error, moved, monkeypatch, capsys):
    def refuse(*_):
        raise error

    monkeypatch.setattr(dead_letters, "_run", refuse)
    with pytest.raises(SystemExit):
        dead_letters.main(["purge", "--queue", "shop.dead", "--source", "photos", "--count"])
    said = capsys.readouterr().err
    assert str(error) in said and ("None is lost" in said) is moved


def test_the_queues_that_an_application_names_itself(tmp_path, monkeypatch):
    (tmp_path / "purgeable.py").write_text(
        "from celery import Celery\napp = Celery('x', broker='memory://')\n"
        "app.conf.update(task_default_queue='a', task_routes={'t.*': {'queue': 'b'}})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert dead_letters.queues_of("purgeable") == {"a", "b"}
    assert dead_letters.queues_of("not_there") == set()
