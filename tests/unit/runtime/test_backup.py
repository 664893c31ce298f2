"""A message goes into the file and out of it as it was, and one that waits for its ETA waits for what is left."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from celery import Celery
from celery_ops.cli.backup import BITS, _read, decode, encode, line_of, position, way_of, without_counts
from celery_ops.cli.queues import own_queues
from kombu import Queue


class Message:
    def __init__(self, body, **properties):
        self.body, self.properties, self.delivery_info = body, properties, {"routing_key": "shop"}


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": None, "c": ["x", {"d": True}]},
        {"$map": "not ours", "$time": 3},
        {"when": datetime(2026, 1, 2, 3, 4, 5), "raw": b"\x00\xff", "price": Decimal("1.50")},
    ],
)
def test_properties_survive(value):
    assert decode(json.loads(json.dumps(encode(value)))) == value


def test_a_line_holds_the_body_as_it_is_and_not_what_the_broker_counts():
    message = Message(b"\x00\xff", priority=3, application_headers={"id": "1", "x-delivery-count": 2})
    known = json.loads(line_of("shop", message))
    assert known["queue"] == "shop"
    assert decode(known["properties"]) == {"priority": 3, "application_headers": {"id": "1"}}
    assert json.loads(line_of("shop", Message("é")))["body"] == "w6k="
    assert without_counts({"priority": 1}) == {"priority": 1}


def test_queues_are_read_as_a_task_goes_through_them():
    queues = ["shop", "celery_delayed_9", "a.dead", "celery_delayed_10"]
    assert sorted(queues, key=position) == ["celery_delayed_10", "celery_delayed_9", "a.dead", "shop"]


def test_a_task_goes_straight_into_its_queue():
    assert way_of("shop", "anything", {}, 0.0) == ("", "shop")


def test_one_that_waits_for_its_eta_waits_for_what_is_left():
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    key = ".".join("0" * BITS) + ".mail.eu"
    exchange, routing_key = way_of("celery_delayed_3", key, {"eta": "2026-01-01T00:00:10Z"}, now)
    assert exchange == "celery_delayed_27"
    assert routing_key == ".".join(f"{10:0{BITS}b}") + ".mail.eu"
    _, past = way_of("celery_delayed_3", key, {"eta": "2025-01-01T00:00:00+00:00"}, now)
    assert past == key
    assert way_of("celery_delayed_3", key, {}, now) == ("celery_delayed_3", key)


def test_a_backup_at_the_same_time_changes_nothing_of_what_is_given_back(tmp_path):
    class Queues:
        def taken(self, queue):
            yield 7, "mine"

        def give_back(self, held, lines):
            if path.read_text() == "mine\n":
                theirs = argparse.Namespace(file=path, queues=[])
                _read(Queues(), theirs, Counter())
            given.append(list(zip(held, lines, strict=True)))

    path, given = tmp_path / ".messages.backup", []
    _read(Queues(), argparse.Namespace(file=path, queues=["shop"]), Counter())
    assert given == [[], [(("shop", 7), "mine\n")]]


def test_the_queues_that_an_application_names_are_its_own():
    app = Celery("shop")
    app.conf.task_queues = [Queue("shop"), Queue("photos")]
    app.conf.task_default_queue = "shop"
    app.conf.task_routes = {"shop.mail": {"queue": "mail"}}
    found = own_queues(app)
    assert found[:3] == ["mail", "photos", "shop"]
    assert (found[3], found[-1], len(found)) == ("celery_delayed_0", "celery_delayed_27", 31)
