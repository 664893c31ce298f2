"""What dead letters say of themselves, and which are chosen; what becomes of them is tested with a broker."""

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from support.stage import RUNTIME, clean_environment

sys.path.insert(0, str(RUNTIME))
from amqp import Message
from ansible.parsing.splitter import parse_kv
from celery_ops.cli.dead_letters import DeadQueue, DeadTask, Known, Selection, option, report, revived, span, work
from celery_ops.errors import OperatorError

NOW = datetime.now(UTC)


def death(reason="rejected", queue="shop", seconds=90):
    # The client gives times without a zone.
    died = (NOW - timedelta(seconds=seconds)).replace(tzinfo=None)
    return {"reason": reason, "queue": queue, "time": died, "exchange": "shop", "count": 1, "routing-keys": ["shop"]}


def properties(*deaths, task="shop.add", id_="1", **others):
    headers = {"task": task, "id": id_, "x-death": list(deaths or [death()]), "x-first-death-queue": "first", **others}
    return {"application_headers": headers, "content_type": "application/json"}


def dead(*deaths, **headers):
    return DeadTask.read(1, properties(*deaths, **headers))


def test_the_newest_death_counts_not_the_wait_of_a_countdown():
    found = dead(death("delivery_limit", "shop"), death("expired", "celery_delayed_3", 900))
    assert (found.task, found.id, found.reason, found.queue, found.age(NOW)) == (
        *("shop.add", "1", "delivery_limit", "shop", "2 min"),
    )


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"application_headers": None},
        {"application_headers": {"x-death": "no list"}},
        {"application_headers": {"x-death": []}},
        {"application_headers": {"x-death": [7], "task": None, "id": 5}},
    ],
)
def test_whatever_somebody_sent_can_be_read(found):
    assert DeadTask.read(1, found).task == "?"
    assert report([DeadTask.read(1, found)], 1, 1, "shop.dead", Known(), NOW)


def test_a_name_can_not_write_on_the_terminal():
    assert dead(task="\x1b[2Jshop\n.add").task == "?[2Jshop?.add"
    assert len(dead(task="x" * 500).task) == 80


@pytest.mark.parametrize(
    ("selection", "takes"),
    [
        (Selection(), "abc"),
        (Selection(task="one"), "ab"),
        (Selection(id="b"), "b"),
        (Selection(reason="expired"), "bc"),
        (Selection(task="one", reason="expired"), "b"),
        (Selection(task="on"), ""),
        (Selection(queue="mail"), "c"),
        (Selection(queue="mail", reason="rejected"), ""),
    ],
    ids=str,
)
def test_selection(selection, takes):
    dead_tasks = [
        dead(id_="a", task="one"),
        dead(death("expired"), id_="b", task="one"),
        dead(death("expired", "mail"), id_="c", task="two"),
    ]
    assert "".join(one.id for one in dead_tasks if selection.takes(one)) == takes


KNOWN = Known(frozenset({"shop.add"}), frozenset({"application/json"}))


@pytest.mark.parametrize(
    ("found", "why", "what"),
    [
        (dead(task="shop.gone"), "no task of this name", "deploy a release that has this task"),
        (dead(), "by the task itself", "replay"),
        (dead(death("expired")), "for a worker too long", "discard the rest"),
        (dead(death("delivery_limit")), "process that ran it died", "logs"),
        (dead(death("another")), "another", "replay"),
        (
            DeadTask.read(1, {**properties(), "content_type": "application/x-python-serialize"}),
            "application/x-python-serialize",
            "JSON",
        ),
    ],
)
def test_why_it_is_dead_and_what_to_do(found, why, what):
    said = KNOWN.judge(found)
    assert why in said[0]
    assert what in said[1]


def test_without_an_importable_release_no_name_is_called_unknown():
    assert "no task of this name" not in Known().judge(dead(task="shop.gone"))[0]


def test_report_groups_counts_and_bounds():
    dead_tasks = [dead(death(seconds=60 * n), id_=f"id-{n}") for n in range(1, 31)] + [
        dead(death(seconds=10), task="b", id_="last")
    ]
    lines = report(dead_tasks, 31, 500, "shop.dead", KNOWN, NOW)
    assert lines[0] == "500 dead letters in shop.dead, of which the first 31 were looked at"
    assert lines[1] == "30 x shop.add from queue shop, dead for 1 min to 30 min"
    newest = lines[lines.index("The newest 20:") + 1 :][:21]
    assert newest[1] == "    id-1  shop.add  rejected  1 min"
    assert newest[20].startswith("To replay:")
    assert any("celery_app_dead_letters=replay" in line for line in lines)
    assert report([], 0, 0, "shop.dead", KNOWN, NOW) == ["0 dead letters in shop.dead; nothing to do"]


@pytest.mark.parametrize(("seconds", "said"), [(-3, "0 s"), (59, "59 s"), (150, "2 min"), (7200, "2 h"), (2e5, "2 d")])
def test_span(seconds, said):
    assert span(seconds) == said


def test_a_replayed_message_is_as_it_was_first_sent():
    marks = {"x-first-death-reason": "expired", "x-last-death-queue": "shop", "x-delivery-count": 7}
    sent = {**properties(expires="2020-01-01T00:00:00", retries=2, **marks), "priority": 3, "correlation_id": "1"}
    again = revived(Message(b'[[1], {}, {"chain": null}]', **sent))
    assert again.body == b'[[1], {}, {"chain": null}]'
    assert again.properties["application_headers"] == {"task": "shop.add", "id": "1", "expires": None, "retries": 2}
    assert (again.properties["priority"], again.properties["correlation_id"]) == (3, "1")
    assert again.properties["delivery_mode"] == 2


def test_at_most_so_many_and_what_can_not_be_done_is_said():
    dead_tasks = [(dead(id_=str(number)), None) for number in range(5)]
    done = []
    assert work(lambda one, _: "why not" if one.id == "0" else "", dead_tasks, 2, done) == [
        "left where it is: shop.add 0: why not"
    ]
    assert [one.id for one in done] == ["1", "2"]


def test_a_letter_that_names_no_queue_stays():
    assert "which queue" in DeadQueue.replay(None, DeadTask.read(1, {}), None)


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "celery_ops.cli.dead_letters", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(**environment),
    )


def test_discard_without_a_yes_asks_nobody():
    done = run("discard", "--queue", "shop.dead", CELERY_BROKER_URL="amqp://shop:secret@127.0.0.1:1/shop")
    assert done.returncode == 2
    assert "--confirm yes" in done.stderr


@pytest.mark.parametrize("action", ["list", "replay"])
def test_a_broker_that_is_away_is_named_without_its_password(action):
    done = run(action, "--queue", "shop.dead", CELERY_BROKER_URL="amqp://shop:secret@127.0.0.1:1/shop")
    assert done.returncode == 1
    assert "broker amqp://shop:**@127.0.0.1:1/shop can't be reached" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert ("None is lost" in done.stderr) == (action == "replay")


def test_without_an_environment_it_says_how_to_get_one():
    assert "<app> celery-ops-dead-letters" in run("list", "--queue", "shop.dead").stderr


def test_what_a_kept_task_raised_is_named():
    known = Known(frozenset({"shop.add"}), frozenset(), {"1": "ValueError"})
    assert known.judge(dead()) == ("failed: ValueError", "fix what raised it, deploy, then replay")
    assert known.judge(dead(id_="2"))[0].startswith("rejected: by the task itself")


def test_a_broker_that_confirms_nothing_may_be_apart_from_its_cluster_as_well():
    def silent(*_, **__):
        raise TimeoutError

    channel = SimpleNamespace(events={"basic_return": set()}, basic_publish_confirm=silent)
    with pytest.raises(OperatorError, match=r"alarm, or a network partition\? Type .*: rabbitmqctl cluster_status"):
        DeadQueue(channel, "shop.dead").publish(Message("{}"), "shop")


@pytest.mark.parametrize(
    ("task", "typed"),
    [
        ("shop.add", "-e celery_app_dead_letters_task=shop.add"),
        ("x; reboot", '-e \'{"celery_app_dead_letters_task": "x; reboot"}\''),
        ("it's $(id)", """-e '{"celery_app_dead_letters_task": "it'"'"'s $(id)"}'"""),
        ("{{ lookup('pipe', 'id') }}", "-e celery_app_dead_letters_task=..."),
    ],
)
def test_a_name_that_anybody_sent_can_be_copied_to_a_shell(task, typed):
    assert report([dead(task=task)], 1, 1, "shop.dead", KNOWN, NOW)[-1].startswith(f"Some only:  {typed}, or _id")


@pytest.mark.parametrize("queue", ["build:default", "a/b", "#", "*", "50% off", "größe", "two words"])
def test_a_purge_of_any_queue_is_undone_alone(queue):
    words = shlex.split(option("queue", queue))
    [text] = words[1:]
    value = json.loads(text) if text.startswith("{") else parse_kv(text)
    assert value == {"celery_app_dead_letters_queue": queue}
