"""The watchdog's metrics: what is added up, what is written, and what outlives a restart."""

import json
import os
import socket
import threading
import time
from struct import pack, unpack
from types import SimpleNamespace

import pytest
from amqp.serialization import dumps, loads
from celery_ops import deploy_lease
from celery_ops.launch.process import Process
from celery_ops.watchdog import metrics
from celery_ops.watchdog.assessment import Assessment, Seen
from celery_ops.watchdog.broker import Answer, Broker
from celery_ops.watchdog.exposition import Exposition
from celery_ops.watchdog.metrics import Metrics
from celery_ops.watchdog.ring import DAY, DAY_SAMPLES, SAMPLES, Ring
from celery_ops.watchdog.totals import Totals
from celery_ops.watchdog.tracker import Tracker

HERE = os.getpid()
NAME = "demo-worker-default-1a2b3c4d"
CONF = "[program:x]\ncommand=/srv/demo/releases/abc/bin/celery-ops-guard -- celery worker -n {0}@web1 -Q jobs,mail\n"


def counts(started, failed=0, published=0.0, delivered=0, finished=0):
    histogram = {"counts": [0] * 10 + [started], "sum": 1.5 * started}
    task = {"started": started, "succeeded": started - failed, "retried": 0, "dropped": 0}
    queue = {"delivered": delivered, "finished": finished, "published": published, "wait": histogram}
    return {
        **{"pid": HERE, "began": 1.0, "time": 2.0, "tick": published, "refused": {}},
        "tasks": {"demo.run": {**task, "failed": {"ValueError": failed} if failed else {}, "runtime": histogram}},
        "queues": {"jobs": queue},
    }


def write(run, found, pid=HERE, name=NAME, began=1):
    path = run / f"{name}.{pid}-{began}.tasks"
    path.write_text(json.dumps(found))
    return path


class TestTotals:
    def test_no_count_goes_back(self, tmp_path):
        totals, gone = Totals(tmp_path, {}), 4194304 + 1
        write(tmp_path, counts(5, 1, delivered=7, finished=5), pid=gone, name="demo-worker-default-0000aaaa")
        write(tmp_path, counts(3, 2, 40.0, delivered=4, finished=3))
        totals.look([HERE])
        assert totals.of_programs()["demo-worker-default"]["tasks"]["demo.run"]["started"] == 8
        assert totals.of_programs()["demo-worker-default"]["tasks"]["demo.run"]["failed"] == {"ValueError": 3}
        assert totals.held() == {"jobs": 1}
        kept = json.loads(json.dumps(totals.kept()))
        assert len(list(tmp_path.glob("*.tasks"))) == 2  # until what is kept is on the disk
        totals.tidy()
        assert [path.name for path in tmp_path.glob("*.tasks")] == [f"{NAME}.{HERE}-1.tasks"]
        # The next watchdog; a reboot has taken the last file before it was looked at again.
        after = Totals(tmp_path, kept)
        next(tmp_path.glob("*.tasks")).unlink()
        after.look([HERE])
        assert after.of_programs()["demo-worker-default"]["tasks"]["demo.run"]["started"] == 8
        assert after.published() == {"jobs": 40.0}
        assert after.tick() == 40.0
        assert after.held() == {}

    def test_a_file_is_added_once_though_the_watchdog_was_killed_before_it_removed_it(self, tmp_path):
        totals = Totals(tmp_path, {})
        write(tmp_path, counts(5), pid=4194304 + 1)
        totals.look([HERE])
        again = Totals(tmp_path, json.loads(json.dumps(totals.kept())))
        for _ in range(2):
            again.look([HERE])
            assert again.of_programs()["demo-worker-default"]["tasks"]["demo.run"]["started"] == 5
        again.tidy()
        again.look([HERE])
        assert again.added == []
        assert again.of_programs()["demo-worker-default"]["tasks"]["demo.run"]["started"] == 5

    def test_half_a_file_is_left_out(self, tmp_path):
        write(tmp_path, {}).write_text('{"pid"')
        totals = Totals(tmp_path, {})
        totals.look([HERE])
        assert totals.of_programs() == {}


class TestRing:
    def ring(self):
        return Ring({"format": 1, "app": "demo", "every": 10.0})

    def test_it_keeps_an_hour(self, tmp_path):
        ring = self.ring()
        for number in range(SAMPLES + 5):
            ring.add(number * 10.0, {"queues": {"jobs": {"ready": number}}})
        assert len(ring.times) == SAMPLES
        assert ring.of["queues"]["jobs"]["ready"][-1] == SAMPLES + 4
        assert ring.of["queues"]["jobs"]["oldest"] == [None] * SAMPLES
        (tmp_path / "hour.json").write_text(ring.text())
        again = self.ring()
        again.load(tmp_path / "hour.json")
        assert (again.times, again.of) == (ring.times, ring.of)

    def test_one_that_is_gone_leaves_within_the_hour(self):
        ring = self.ring()
        ring.add(0.0, {"queues": {"old": {"ready": 1}}, "programs": {"p": {"active": 1, "memory": 5}}})
        ring.add(10.0, {"queues": {"new": {"ready": 2}}})
        assert ring.of["queues"]["old"]["ready"] == [1, None]
        assert ring.of["queues"]["new"]["ready"] == [None, 2]
        ring.add(3605.0, {})
        assert ring.times == [10.0, 3605.0]
        assert "old" not in ring.of["queues"]
        assert ring.of["programs"] == {}

    def test_a_clock_that_is_set_back(self):
        ring = self.ring()
        ring.add(5000.0, {"queues": {"jobs": {"ready": 1}}})
        ring.add(100.0, {"queues": {"jobs": {"ready": 2}}})
        assert ring.times == [100.0]

    @pytest.mark.parametrize("text", ["", "{", '{"format": 9, "times": [], "queues": {}, "programs": {}}', "[]"])
    def test_a_damaged_file_is_left_out(self, tmp_path, text):
        (tmp_path / "hour.json").write_text(text)
        ring = self.ring()
        ring.load(tmp_path / "hour.json")
        assert ring.times == []

    def test_five_minutes_are_one_sample_of_the_day(self, tmp_path):
        ring, day = self.ring(), Ring({"format": 1, "app": "demo", "every": 300.0}, DAY_SAMPLES, DAY)
        for at, ready, consumers, active in ((0.0, 90, 2, 4), (310.0, 3, 1, 2), (320.0, 5, 2, None), (330.0, 4, 2, 1)):
            queue = {"ready": ready, "consumers": consumers, "rate": ready / 10}
            ring.add(at, {"queues": {"jobs": queue}, "programs": {"worker": {"active": active, "memory": ready}}})
        day.add(330.0, ring.condensed(30.0))
        jobs = {"ready": [5], "unacked": [None], "consumers": [1], "oldest": [None], "rate": [0.4]}
        assert day.of == {
            "queues": {"jobs": jobs},
            "programs": {"worker": {"active": [1.5], "most": [2], "memory": [5]}},
        }
        (tmp_path / "day.json").write_text(day.text())
        again = Ring({"format": 1, "app": "demo", "every": 300.0}, DAY_SAMPLES, DAY)
        again.load(tmp_path / "day.json")
        assert (again.times, again.of) == (day.times, day.of)


def test_the_text_format():
    out = Exposition(app="demo")
    out.declare("a_total", "counter", "What it is.")
    out.declare("nothing", "gauge", "Left out.")
    out.declare("b", "histogram", "How long.")
    out.add("a_total", 3, task='"x"\n\\')
    out.histogram("b", (0.5, 2.0), [1, 0, 4], 9.5)
    assert out.text().splitlines() == [
        "# HELP a_total What it is.",
        "# TYPE a_total counter",
        'a_total{app="demo",task="\\"x\\"\\n\\\\"} 3',
        "# HELP b How long.",
        "# TYPE b histogram",
        'b_bucket{app="demo",le="0.5"} 1',
        'b_bucket{app="demo",le="2"} 1',
        'b_bucket{app="demo",le="+Inf"} 5',
        'b_sum{app="demo"} 9.5',
        'b_count{app="demo"} 5',
    ]


class Host:
    """A watchdog as the metrics see it, with one worker."""

    def __init__(self, tmp_path, monkeypatch):
        self.run, self.conf_dir, self.directory = (tmp_path / name for name in ("run", "conf.d", "metrics"))
        for path in (self.run, self.conf_dir):
            path.mkdir()
        (self.conf_dir / f"{NAME}.conf").write_text(CONF.format(NAME))
        self.app, self.said = "demo", []
        tracker = Tracker(NAME, self.said.append)
        tracker.assessment = Assessment("ready")
        self.trackers, self.sent, self.seen = {NAME: tracker}, [], {}
        self.look(HERE)
        self.broker = SimpleNamespace(answer=Answer(), urls=["amqp://x"], ask=lambda queues: self.asked.append(queues))
        self.asked = []

    say = property(lambda self: self.said.append)

    def look(self, pid):
        beat = {"kind": "worker", "state": "ready", "slots": 2, "active": 1, "reserved": 3, "connected": True}
        main = Process(pid, "S", 1, pid, 1)
        self.seen[NAME] = Seen(NAME, main, (), {**beat, "queues": {"jobs": True}, "since": 0.0})

    def round(self, found):
        found.last = 0.0
        found.step()
        assert self.said == []
        return (self.directory / "demo.prom").read_text()

    def metrics(self):
        return Metrics(self, self.directory, self.broker)


@pytest.fixture
def host(tmp_path, monkeypatch):
    return Host(tmp_path, monkeypatch)


def value(text, metric, **labels):
    wanted = [f'{key}="{label}"' for key, label in labels.items()]
    found = [
        line for line in text.splitlines() if line.startswith(f"{metric}{{") and all(one in line for one in wanted)
    ]
    assert len(found) < 2, found
    return float(found[0].rpartition(" ")[2]) if found else None


class TestMetrics:
    def test_what_is_written(self, host):
        write(host.run, counts(3, 1, time.time(), delivered=4, finished=3))
        found = host.metrics()
        text = host.round(found)
        assert 'app="demo",host="web1"' in text
        assert value(text, "celery_ops_program_state", program="demo-worker-default", state="ready") == 1
        assert value(text, "celery_ops_program_state", program="demo-worker-default", state="down") == 0
        assert value(text, "celery_ops_worker_active") == 1
        assert value(text, "celery_ops_worker_reserved") == 3
        assert value(text, "celery_ops_queue_unacked", queue="jobs") == 1
        assert value(text, "celery_ops_queue_ready", queue="jobs") is None  # the broker was not asked yet
        assert value(text, "celery_ops_tasks_failed_total", task="demo.run") == 1
        assert value(text, "celery_ops_task_exceptions_total", exception="ValueError") == 1
        assert value(text, "celery_ops_task_runtime_seconds_count", task="demo.run") == 3
        assert value(text, "celery_ops_info", release="abc", generation="1a2b3c4d") == 1
        assert text.count("abc") == 1  # nothing else has a label that a deploy changes
        assert text.count("1a2b3c4d") == 1
        assert value(text, "celery_ops_program_memory_bytes", program="demo-worker-default") > 1_000_000
        assert host.asked == [{name: name for name in ("jobs", "mail", "demo.dead")}]
        assert (host.directory / "demo.prom").stat().st_mode & 0o777 == 0o644

    def test_the_queue_of_a_broadcast_is_asked_for_by_its_name_and_counted_by_its_alias(self, host):
        host.seen[NAME].heartbeat.update(queues={"jobs": True, "mail": True}, aliases={"mail": "bcast.5e6f"})
        host.round(host.metrics())
        assert host.asked == [{"jobs": "jobs", "demo.dead": "demo.dead", "bcast.5e6f": "mail"}]

    def test_the_age_of_the_oldest_task_is_a_bound(self, host):
        found, now = host.metrics(), time.time()

        def oldest(ready, **more):
            answer = {"jobs": {"ready": ready, "consumers": 1}, "demo.dead": {"ready": 7, "consumers": 0}}
            host.broker.answer = Answer(time.time(), answer)
            text = host.round(found)
            assert value(text, "celery_ops_dead_letters") == 7
            assert value(text, "celery_ops_queue_ready", queue="demo.dead") is None
            return value(text, "celery_ops_queue_oldest_seconds", queue="jobs")

        assert oldest(0) == 0
        found.empty["jobs"] = now - 100
        assert oldest(5) == pytest.approx(100, abs=5)
        write(host.run, counts(1, published=now - 30))
        assert oldest(5) == pytest.approx(30, abs=5)  # the newest that was taken is younger than the last look
        after = host.metrics()
        assert after.empty["jobs"] == now - 100

    def test_a_clock_that_was_set_back_hides_neither_the_oldest_task_nor_the_tick(self, host):
        now, ahead = time.time(), time.time() + 7200
        before = Totals(host.run, {})
        write(host.run, counts(1, published=ahead), pid=4194304 + 1)
        before.look([HERE])
        host.directory.mkdir()
        kept = {"tasks": before.kept(), "empty": {"jobs": ahead}}
        (host.directory / "state.json").write_text(json.dumps(kept))
        write(host.run, {**counts(1, published=now - 300), "tick": now - 20})
        found = host.metrics()
        host.broker.answer = Answer(now, {"jobs": {"ready": 5, "consumers": 0}})
        text = host.round(found)
        assert found.empty["jobs"] == now
        assert value(text, "celery_ops_tick_timestamp_seconds") == pytest.approx(now - 20, abs=1)
        found.empty["jobs"] = now - 100
        text = host.round(found)
        assert value(text, "celery_ops_queue_oldest_seconds", queue="jobs") == pytest.approx(100, abs=5)

    def test_an_old_answer_of_the_broker_says_nothing(self, host):
        found = host.metrics()
        host.broker.answer = Answer(time.time() - 60, {"jobs": {"ready": 1, "consumers": 0}}, error="away")
        text = host.round(found)
        assert value(text, "celery_ops_queue_ready", queue="jobs") is None
        assert value(text, "celery_ops_broker_up") == 0
        assert value(text, "celery_ops_queue_unacked", queue="jobs") == 0

    def test_restarts_outlive_the_watchdog_and_a_deploy_is_none(self, host):
        found = host.metrics()
        host.round(found)
        host.look(os.getppid())
        host.sent.append((NAME, "SIGTERM"))
        assert value(host.round(found), "celery_ops_program_restarts_total", program="demo-worker-default") == 1
        found = host.metrics()
        host.seen["demo-worker-default-0000ffff"] = host.seen.pop(NAME)
        text = host.round(found)
        assert value(text, "celery_ops_program_restarts_total", program="demo-worker-default") == 1
        labels = {"program": "demo-worker-default", "signal": "SIGTERM"}
        assert value(text, "celery_ops_watchdog_signals_total", **labels) == 1

    def test_of_two_generations_the_one_that_stays_counts(self, host):
        old = Tracker("demo-worker-default-0000ffff", host.said.append)
        old.assessment = Assessment("draining")
        host.trackers[old.name] = old
        beat = {**host.seen[NAME].heartbeat, "state": "draining", "since": time.monotonic() - 12}
        host.seen[old.name] = Seen(old.name, host.seen[NAME].main, (), beat)
        text = host.round(host.metrics())
        assert value(text, "celery_ops_program_state", program="demo-worker-default", state="ready") == 1
        assert value(text, "celery_ops_program_drain_seconds", program="demo-worker-default") >= 12
        assert value(text, "celery_ops_worker_slots") == 2
        assert value(text, "celery_ops_worker_active") == 2

    def test_a_directory_that_can_not_be_written_is_said_once(self, host):
        host.directory.write_text("a file")
        found = host.metrics()
        for _ in range(3):
            found.last = 0.0
            found.step()
        assert len(host.said) == 1
        assert "no metrics are written" in host.said[0]

    def test_deploys_are_read_from_the_audit_log(self, host, tmp_path, monkeypatch):
        log = tmp_path / "deploys.log"
        entries = [("deploy", "good"), ("deploy", "failed: x; taken back"), ("unlock", "good"), ("deploy", "good")]
        log.write_text(
            "".join(
                json.dumps({"at": f"2026-11-25T00:00:0{number}+0000", "action": action, "outcome": outcome}
                           | {"seconds": {"workers": 7.5 + number}}) + "\n"
                for number, (action, outcome) in enumerate(entries)
            )
            + "half a li"
        )  # fmt: skip
        monkeypatch.setattr(type(host.metrics().layout), "audit_log", log)
        text = host.round(host.metrics())
        assert value(text, "celery_ops_deploys_total", action="deploy", outcome="good") == 2
        assert value(text, "celery_ops_deploys_total", action="deploy", outcome="failed") == 1
        assert value(text, "celery_ops_deploys_total", action="rollback", outcome="good") == 0
        assert value(text, "celery_ops_deploy_phase_seconds", phase="workers") == 10.5
        assert value(text, "celery_ops_deploy_timestamp_seconds", outcome="good") == 1795564803

    def test_the_age_of_the_deploy_lock_does_not_jump_with_the_clock(self, host, tmp_path, monkeypatch):
        found = host.metrics()
        monkeypatch.setattr(type(found.layout), "deploy_lock", tmp_path / "deploy.lock")
        assert value(host.round(found), "celery_ops_deploy_lock_age_seconds") == 0
        lease = deploy_lease.renewed({"id": "anna"})
        found.layout.deploy_lock.write_text(json.dumps({**lease, "renewed": lease["renewed"] - 3600}))
        assert value(host.round(found), "celery_ops_deploy_lock_age_seconds") < 30
        found.layout.deploy_lock.write_text(json.dumps({**lease, "monotonic": lease["monotonic"] - 70}))
        assert 70 <= value(host.round(found), "celery_ops_deploy_lock_age_seconds") < 100


def test_a_broker_that_accepts_and_says_nothing_holds_nothing_up(monkeypatch):
    monkeypatch.setattr("celery_ops.watchdog.broker.TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = Broker("demo", f"amqp://u:p@127.0.0.1:{server.getsockname()[1]}/demo")
        began = time.monotonic()
        broker.ask({"jobs": "jobs"})
        assert time.monotonic() - began < 0.3
        deadline = time.monotonic() + 15
        while not broker.answer.error and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert broker.answer.at == 0
        assert broker.answer.error
        assert "p@" not in broker.answer.error


class Server:
    """As much of RabbitMQ as answers who asks for queues: of each the code by which it closes the channel, or 0."""

    def __init__(self, queues):
        self.queues, self.open, self.socket = queues, set(), socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://u:p@127.0.0.1:{self.socket.getsockname()[1]}/demo"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client, _ = self.socket.accept()
        with client, client.makefile("rb") as sent:
            sent.read(8)
            self.say(client, 0, (10, 10), "ooFSS", (0, 9, {}, "PLAIN AMQPLAIN", "en_US"))
            while head := sent.read(7):
                kind, channel, size = unpack(">BHI", head)
                payload = sent.read(size + 1)
                if kind == 1:
                    self.hear(client, channel, unpack(">HH", payload[:4]), payload[4:])

    def say(self, client, channel, method, form, values):
        payload = pack(">HH", *method) + dumps(form, values)
        client.sendall(pack(">BHI", 1, channel, len(payload)) + payload + b"\xce")

    def hear(self, client, channel, method, arguments):
        match method:
            case (10, 11):
                self.say(client, 0, (10, 30), "BlB", (2047, 131072, 60))
            case (10, 40):
                self.say(client, 0, (10, 41), "s", ("",))
            case (20, 10):
                self.open.add(channel)
                self.say(client, channel, (20, 11), "S", ("",))
            case (20, 40):
                self.open.discard(channel)
                self.say(client, channel, (20, 41), "", ())
            case (50, 10):
                (_, queue), _ = loads("Bs", arguments, 0)
                if code := self.queues[queue]:
                    self.open.discard(channel)
                    self.say(client, channel, (20, 40), "BsBB", (code, "no", 50, 10))
                else:
                    self.say(client, channel, (50, 11), "sll", (queue, 7, 2))


def test_a_queue_that_the_broker_says_nothing_of_costs_no_channel_and_hides_no_other():
    server = Server({"gone": 404, "jobs": 0, "locked": 405})
    broker = Broker("demo", server.url)
    broker.wanted = {queue: queue for queue in server.queues}
    for _ in range(3):
        broker.look()
        assert broker.answer.queues == {"jobs": {"ready": 7, "consumers": 2}}, broker.answer.error
        assert server.open == set()


def test_without_a_broker_of_amqp_nothing_is_asked():
    broker = Broker("demo", "redis://x")
    broker.ask({"jobs": "jobs"})
    assert broker.thread is None
    assert metrics.EVERY == 10.0
