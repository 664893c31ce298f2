"""log_lines.py: what programs wrote, merged by time, whoever wrote it and however much there is."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.log_lines import (
    BLOCK,
    Follower,
    Logs,
    Wanted,
    lines_backwards,
    mistake,
    releases_of,
    seconds,
    time_of,
)
from ansible_collections.celery_ops.kit.plugins.modules import celery_logs, celery_report
from ansible_collections.celery_ops.kit.plugins.plugin_utils.logs import logs as logs_of_hosts
from support.module_run import ModuleRun

A, B = "shop-worker-a-11111111", "shop-web-22222222"
AT = "2026-11-26 15:0"


@pytest.fixture
def logs(tmp_path):
    (tmp_path / f"{A}.log.1").write_text(f"[{AT}0:00,000: INFO/MainProcess] the oldest\n")
    (tmp_path / f"{A}.log").write_text(
        f"[{AT}1:00,500: ERROR/ForkPoolWorker-1] Task shop.add[id-1] raised\nTraceback:\n  boom\n"
        f"[{AT}3:00,000: INFO/MainProcess] Task shop.add[id-2] received\n"
    )
    (tmp_path / f"{B}.log").write_text(f"[{AT}2:00] started\n")
    (tmp_path / "worker-a.log").symlink_to(f"{A}.log")
    (tmp_path / "shop-two-worker-a-11111111.log").write_text("")
    return Logs("shop", tmp_path, {A: "r1", B: "r2"})


def texts(logs, count=10, **wanted):
    return [entry.text for entry in logs.last(count, Wanted(**wanted))]


def test_all_programs_are_merged_by_time_and_a_traceback_stays_with_its_line(logs):
    found = texts(logs)
    assert [text.split("] ", 1)[1].split("\n")[0] for text in found] == [
        "the oldest",
        "Task shop.add[id-1] raised",
        "started",
        "Task shop.add[id-2] received",
    ]
    assert found[1].endswith("Traceback:\n  boom")
    assert len(texts(logs, 2)) == 2 and "started" in texts(logs, 2)[0]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"program": "worker-a"}, 3),
        ({"program": "shop-w*"}, 4),
        ({"program": B}, 1),
        ({"task": "id-1"}, 1),
        ({"task": "id-"}, 2),
        ({"release": "r2"}, 1),
        ({"release": "r2", "task": "id-1"}, 0),
    ],
)
def test_a_choice(logs, wanted, count):
    assert len(texts(logs, **wanted)) == count


def test_what_is_older_is_left_out(logs):
    since = time_of(f"{AT}2:00")
    assert len(texts(logs, since=since)) == 2


def test_a_program_or_release_that_is_not_there_is_named(logs):
    assert (
        mistake({"program": "worker-b"}, logs)
        == "program: 'worker-b' has no log here. Available: two-worker-a, web, worker-a"
    )
    assert mistake({"release": "r9"}, logs) == "release: of 'r9' no program is known here. Available: r1, r2"
    assert mistake({"program": "worker-*", "release": "r1", "task": ""}, logs) == ""


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-26 15:00:00,250: INFO/MainProcess] celery",
        "2026-11-26 15:00:00.25: the kit",
        '{"time": "2026-11-26T15:00:00.250", "level": "INFO"}',
        "INFO 2026-11-26 15:00:00,250 django",
        "[INFO] [2026-11-26 15:00:00.250] brackets",
    ],
)
def test_times(line, monkeypatch):
    assert time_of(line) == time_of("2026-11-26 15:00:00") + 0.25


def test_a_time_with_a_zone_and_what_is_none():
    assert (
        time_of("[2026-11-26 15:00:00 +0000] [1] [INFO] gunicorn") == time_of("2026-11-26T16:00:00+01:00") == 1795705200
    )
    assert time_of("2026-11-26T15:00:00Z") == 1795705200
    assert time_of("ValueError: 2026-11-26 15:00:00 is bad") is None
    assert time_of("2026-13-40 15:00:00") is None
    assert time_of("") is None


def test_lines_longer_than_a_block_and_bytes_of_any_kind(tmp_path):
    path = tmp_path / "log"
    lines = ["first", "ä" * BLOCK, "", "b" * (2 * BLOCK + 1), "last without an end"]
    path.write_bytes("\n".join(lines).encode() + b"\xff")
    assert [*lines_backwards(path)] == ["last without an end\ufffd", lines[3], lines[1], "first"]
    path.write_bytes(b"")
    assert [*lines_backwards(path)] == []


def test_spans():
    written = {"90": 90, "30s": 30, "10 min": 600, "10min": 600, "10m": 600, "2h": 7200, "1d": 86400}
    assert {text: seconds(text) for text in written} == written
    for text in ("", "m", "10 months", "-5", "2 hours", "٣h"):
        with pytest.raises(ValueError, match=f"'{text}' is not a duration. Write a number and a unit"):
            seconds(text)


def test_the_release_of_a_generation_is_in_its_supervisor_file():
    assert releases_of([(A, "command=/srv/shop/releases/abc/bin/celery-ops-guard"), (B, "")]) == {A: "abc"}


def test_following_through_a_rotation_and_a_deploy(logs, tmp_path):
    follower = Follower(logs, Wanted())
    assert follower.new() == []
    with (tmp_path / f"{A}.log").open("a") as file:
        file.write(f"[{AT}4:00] one\n[{AT}4:01] ha")
    assert [entry.text for entry in follower.new()] == [f"[{AT}4:00] one"]
    with (tmp_path / f"{A}.log").open("a") as file:
        file.write("lf\n")
    (tmp_path / f"{A}.log").replace(tmp_path / f"{A}.log.1")
    (tmp_path / f"{A}.log").write_text(f"[{AT}5:00] rotated\n")
    (tmp_path / "shop-worker-a-33333333.log").write_text(f"[{AT}6:00] deployed\n")
    found = [entry.text for _ in range(3) for entry in follower.new()]
    assert sorted(found) == [f"[{AT}4:01] half", f"[{AT}5:00] rotated", f"[{AT}6:00] deployed"]


def test_following_one_task(logs, tmp_path):
    follower = Follower(logs, Wanted(task="id-7"))
    with (tmp_path / f"{A}.log").open("a") as file:
        file.write(f"[{AT}4:00] id-7 raised\nTraceback\n[{AT}4:01] id-8\n  more of id-8\n")
    assert [entry.text for entry in follower.new()] == [f"[{AT}4:00] id-7 raised", "Traceback"]


def hosts(**answers):
    return {
        "ansible_play_hosts_all": [*answers],
        "hostvars": {name: {"__celery_app_logs": answer} for name, answer in answers.items()},
    }


def test_hosts_are_merged_too():
    one = {
        "entries": [{"time": 1, "program": "a", "text": "x\ny"}, {"time": 3, "program": "a", "text": "z"}],
        "wrong": "",
    }
    two = {"entries": [{"time": 2, "program": "bb", "text": "w"}], "wrong": ""}
    text = logs_of_hosts(hosts(h1=one, h2=two, lost={"unreachable": True}))["text"]
    assert text.split("\n") == [
        "h1 a  | x",
        "h1 a  | y",
        "h2 bb | w",
        "h1 a  | z",
        "shown: 3 entries; programs: 2; hosts: 2",
    ]


def test_a_program_of_one_host_is_no_mistake_on_the_other():
    here, elsewhere = {"entries": [], "wrong": ""}, {"entries": [], "wrong": "program: 'a' has no log here"}
    assert logs_of_hosts(hosts(h1=here, h2=elsewhere))["wrong"] == ""
    assert logs_of_hosts(hosts(h2=elsewhere))["wrong"] == "celery_app_logs_program: 'a' has no log here (h2)"


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        (celery_logs, {"lines": "many"}, "celery_app_logs_lines: 'many' is not a number of entries. Write 1 or more"),
        (celery_logs, {"lines": "-5"}, "celery_app_logs_lines: '-5' is not a number"),
        (celery_logs, {"since": "yesterday"}, "celery_app_logs_since: 'yesterday' is not a duration. Write a"),
        (celery_report, {"over": "week"}, "celery_app_report_over: 'week' is neither day nor hour"),
    ],
)
def test_a_verb_refuses_by_its_variables_name(module, options, says):
    assert says in ModuleRun(module.main, {"app": "shop", **options}).result()["msg"]
