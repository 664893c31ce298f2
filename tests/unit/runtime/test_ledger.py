"""The ledger's counted: what counts as lost, doubled and run again, and what is no evidence of anything."""

import io
import json
import socket
import sys
import threading

import pytest
from celery import Celery
from celery_ops import ledger
from celery_ops.cli.soak import collect, main
from celery_ops.ledger import Attempt, Executions, note, reconcile


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("CELERY_OPS_LEDGER_DIRECTORY", str(tmp_path / "ledger"))
    return tmp_path / "ledger"


def attempts(*confirmed, kind="plain"):
    return [Attempt(number, 100.0 + number, kind, yes) for number, yes in enumerate(confirmed)]


def executions(*lines):
    return Executions.read(f"{line} rel 1" for line in lines)


def test_a_confirmed_task_that_never_finished_is_lost():
    counted = reconcile(attempts(True, True), executions("0 began 100.1", "0 done 100.2", "1 began 101.1"))
    assert (counted["confirmed"], counted["executed"], counted["lost"]) == (2, 1, [1])


def test_one_that_was_not_confirmed_may_have_run_or_not():
    counted = reconcile(attempts(False, False), executions("1 began 101.1", "1 done 101.2"))
    assert (counted["attempted"], counted["confirmed"], counted["executed"], counted["lost"]) == (2, 0, 1, [])


def test_finished_twice_is_doubled_and_begun_again_after_an_end_by_force_is_rerun():
    twice = ["0 began 1", "0 done 2", "0 began 3", "0 done 4"]
    counted = reconcile(attempts(True, True), executions(*twice, "1 began 1", "1 began 3", "1 done 4"))
    assert (counted["doubled"], counted["rerun"], counted["lost"]) == ([0], 1, [])


def test_a_retry_is_neither():
    lines = ["0 began 100.1", "0 retried 100.2", "0 began 101.2", "0 done 101.3"]
    counted = reconcile(attempts(True, kind="retry"), executions(*lines))
    assert (counted["doubled"], counted["rerun"], counted["lost"]) == ([], 0, [])


def test_a_line_that_a_power_cut_left_unfinished_is_none():
    assert Executions.read(["0 began 1 rel 1", "0 done 2"]).done == {}


def test_recovery_lasts_until_tasks_are_prompt_and_confirmed_again():
    prompt = ["0 began 100.1", "0 done 100.1", "2 began 102.1", "2 done 102.1"]
    assert reconcile(attempts(True, True, True), executions(*prompt, "1 began 106.5", "1 done 107"), since=101)[
        "recovery"
    ] == pytest.approx(5.5)
    assert reconcile(attempts(True, False, True), executions(*prompt), since=100.5)["recovery"] == pytest.approx(0.5)
    assert reconcile(attempts(True, True, True), executions(*prompt, "1 began 101.1"), since=100.5)["recovery"] == 0


def test_a_countdown_is_no_wait():
    counted = reconcile(attempts(True, kind="countdown"), executions("0 began 105", "0 done 105"), since=100)
    assert (counted["recovery"], counted["wait_max"]) == (0, None)


def test_samples_without_a_consumer_are_counted():
    counted = reconcile([], Executions(), [(1.0, 1, 0), (1.1, 0, 3), (1.2, 0, 4)])
    assert (counted["samples"], counted["without_consumer"]) == (3, 2)


def test_notes_say_number_what_and_release(directory, monkeypatch, tmp_path):
    (tmp_path / "abc/app").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "abc/app")
    note("a-run", 7, "began")
    note("a-run", 7, "done")
    found = Executions.read((directory / "a-run").read_text().splitlines())
    assert (found.begun, found.done, found.releases) == ({7: 1}, {7: 1}, {"abc": 1})


@pytest.mark.parametrize("run", ["../escape", "", "a/b", "-x", ".hidden", "a b", "x" * 101])
def test_a_message_names_no_file_of_its_choice(run, directory):
    with pytest.raises(ValueError, match="can't name a run"):
        note(run, 1, "began")
    assert not directory.exists()


def test_collect_ends_when_all_are_done_or_nothing_is_new(directory):
    note("r", 0, "done")
    assert collect("r", expected={0}, patience=30).startswith("0 done")
    assert collect("r", expected={1}, patience=0.3).startswith("0 done")  # another one is no substitute
    assert collect("none", expected=set(), patience=0.3) == ""
    late = threading.Timer(0.5, note, ("r", 1, "done"))
    late.start()
    assert "1 done" in collect("r", expected={0, 1}, patience=30)
    late.join()


def test_reconcile_fails_when_one_is_lost(directory, monkeypatch, capsys):
    directory.mkdir()
    (directory / "r.json").write_text(json.dumps({"attempts": [[0, 1.0, "plain", True]], "samples": []}))

    def outcome(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(SystemExit) as end:
            main(["reconcile", "--run", "r"])
        return end.value.code, json.loads(capsys.readouterr().out)["lost"]

    assert outcome("") == (1, [0])
    assert outcome("0 began 1.1 rel 1\n0 done 1.2 rel 1\n") == (0, [])


def test_collect_expects_what_was_published_here(directory, capsys):
    note("r", 0, "done")
    (directory / "r.json").write_text(json.dumps({"attempts": [[0, 1.0, "plain", True]], "samples": []}))
    main(["collect", "--run", "r", "--patience", "100"])
    assert capsys.readouterr().out.startswith("0 done")


def test_reconcile_says_what_is_missing(capsys):
    with pytest.raises(SystemExit, match=r"ledger/r\.json is missing: type celery-ops-soak publish --run r"):
        main(["reconcile", "--run", "r"])


def test_the_load_is_the_same_for_the_same_run():
    first, second = (ledger.Publisher(None, None, "q", "r", 1.0)._drawn.random() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("own", [None, {}, {"confirm_publish": False, "read_timeout": 3, "client_properties": {}}])
def test_a_publish_counts_once_the_broker_has_it_whatever_the_application_asks_for(own):
    """What was only sent is lost where the connection ends soon after, and was counted as a lost task."""
    app = Celery("demo", broker="amqp://one", broker_transport_options=own, set_as_current=False)
    options = ledger.with_confirms(app).transport_options
    assert options == {"write_timeout": 10, "read_timeout": 10, **(own or {}), "confirm_publish": True}


def test_a_publisher_that_found_a_node_keeps_to_it(monkeypatch):
    """After a failure it begins with the node that it was last at, not with the URL's first, which may be gone."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        urls = f"amqp://127.0.0.1:{gone.getsockname()[1]};memory://"
        app = Celery("demo", broker=urls, broker_transport_options={"connect_retries_timeout": 5}, set_as_current=False)
        publisher = ledger.Publisher(app, lambda: app.connection_for_write(connect_timeout=0.2), "q", "r", 1.0)
        publisher._attempt(0)
        assert publisher.confirmed == 1, publisher.failure
        gone.accept()[0].close()

        with monkeypatch.context() as broken:
            broken.setattr(app, "send_task", lambda *_, **__: 1 / 0)
            publisher._attempt(1)
        publisher._attempt(2)
        assert [attempt.confirmed for attempt in publisher.attempts] == [True, False, True]
        gone.settimeout(0.2)
        with pytest.raises(TimeoutError):
            gone.accept()


@pytest.mark.parametrize("below", ["app", "app/services/prices"])
def test_the_counted_name_the_release_wherever_in_it_a_program_runs(below, tmp_path, monkeypatch):
    (tmp_path / "releases/abc" / below).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "releases/abc" / below)
    monkeypatch.setenv("CELERY_OPS_LEDGER_DIRECTORY", str(tmp_path / "ledger"))
    ledger.note("run", 1, "done")
    assert (tmp_path / "ledger/run").read_text().split()[3] == "abc"


@pytest.mark.parametrize(("waits", "median"), [((), None), ((3,), 3), ((1, 2), 1.5), ((5, 1, 2), 2), ((1, 2, 4, 9), 3)])
def test_the_median_of_the_waits(waits, median):
    began = [f"{number} began {100 + number + wait}" for number, wait in enumerate(waits)]
    assert reconcile(attempts(*[True] * len(waits)), executions(*began))["wait_p50"] == median
