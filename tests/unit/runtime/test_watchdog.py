"""The watchdog: how it assesses what it sees, and what it does to real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from celery_ops import proc
from celery_ops.launch.process import Process
from celery_ops.layout import program_of, stand_in_of
from celery_ops.watchdog import assessment, orphans, recycling, tracker, watchdog
from celery_ops.watchdog.assessment import Assessment, Seen, assess, remedy
from celery_ops.watchdog.tracker import Tracker
from celery_ops.watchdog.watchdog import Watchdog
from celery_ops.worker.heartbeat import read
from support.stage import APP, PROGRAM_NAME, alive, clean_environment
from support.wait import wait_until

DRAIN = 60
NAME = "demo-worker-default-1a2b3c4d"
BEATS = {
    "kind": "worker",
    "pid": 10,
    "state": "ready",
    "since": 0,
    "beat": 0,
    "due": 5,
    "broker": "amqp://broker:5672",
    "connected": True,
    "queues": {"a": True, "b": True},
    "pool": "prefork",
    "slots": 2,
    "active": 0,
    "reserved": 0,
    "accepted": 7,
}
BEAT = {key: BEATS[key] for key in ("pid", "state", "since", "beat", "due", "broker")} | {"kind": "scheduler"}

STANDBY = BEAT | {"state": "standby", "connected": True}


def process(pid=10, state="S", age=1000.0):
    """`age` is reckoned from the tests' collection: one is older when it is looked at; below 0 it stays young."""
    start = (time.clock_gettime(time.CLOCK_BOOTTIME) - age) * os.sysconf("SC_CLK_TCK")
    return Process(pid, state, 1, 10, int(start))


def seen(beat=BEATS, main="S", children="SS", name=NAME, age=1000.0, **more):
    others = tuple(process(pid, state) for pid, state in enumerate(children, 11))
    heartbeat = {key: value for key, value in beat.items() if key not in more} | {
        key: more.pop(key) for key in list(more) if key in BEATS
    }
    return Seen(name, process(state=main, age=age), others, heartbeat if beat else {}, **more)


@pytest.mark.parametrize(
    ("look", "broker", "state"),
    [
        (seen(), True, "ready"),
        (seen(STANDBY), True, "standby"),
        (seen(STANDBY | {"connected": False}), True, "reconnecting"),
        (seen(STANDBY | {"connected": False}), False, "broker away"),
        (seen(active=1, reserved=2), True, "ready"),
        (seen(active=2, reserved=4, idle=3600), True, "busy"),
        (seen(late=29), True, "ready"),
        (seen(late=31), True, "stuck"),
        (seen(late=3600), False, "broker away"),
        (seen(late=3600, connected=False, unwritable="/run is full"), True, "up"),
        (seen(BEAT, late=3600, unwritable="/run is full"), True, "up"),
        (seen(late=29, unwritable="/run is full"), True, "ready"),
        (seen(late=3600, main="T", unwritable="/run is full"), True, "frozen"),
        (seen(connected=False), False, "broker away"),
        (seen(connected=False), True, "reconnecting"),
        (seen(connected=False, broker=""), True, "reconnecting"),
        (seen(state="starting", connected=False, queues={}), False, "starting"),
        (seen(state="starting", connected=False, queues={}, late=40), False, "broker away"),
        (seen(state="draining", connected=False, queues={}, late=80, drains=89), True, "draining"),
        (seen(state="draining", late=80, drains=89), False, "draining"),
        (seen(state="draining", drains=91), True, "overdue"),
        (seen(queues={"a": True, "b": False}), True, "deaf"),
        (seen(queues={"a": True, "b": False}, active=2), True, "deaf"),
        (seen(queues={}), True, "paused"),
        (seen(reserved=1, idle=31), True, "stuck"),
        (seen(reserved=1, idle=29), True, "ready"),
        (seen(reserved=2, active=1, idle=3600), True, "ready"),
        (seen(main="T"), False, "frozen"),
        (seen(children="ST"), True, "frozen"),
        (seen(children="St"), True, "ready"),
        (seen(children="SD", main="R"), True, "ready"),
        (seen({}, age=-3600), True, "starting"),
        (seen({}, age=61), True, "up"),
        (seen({}, name="demo-web-1a2b3c4d", age=1), True, "up"),
        (seen(reserved=1, idle=200, starts=300), True, "ready"),
        (seen(reserved=1, idle=301, starts=300), True, "stuck"),
        (seen({}, age=200, starts=9000), True, "starting"),
        (seen(state="starting", connected=False, queues={}, late=200, age=210, starts=9000), True, "starting"),
        (seen(state="starting", connected=False, queues={}, late=300, age=310, starts=300), True, "stuck"),
        (seen(BEAT, due=300, late=-200), True, "ready"),
        (seen(BEAT, late=31), True, "stuck"),
        (seen(BEAT, late=31), False, "broker away"),
    ],
)
def test_what_it_makes_of_what_it_sees(look, broker, state):
    found = assess(look, DRAIN, lambda address: broker)
    assert found.state == state, found
    assert found.why or state in ("ready", "busy", "starting")


def test_the_broker_is_asked_only_in_doubt():
    asked = []
    for look in (seen(), seen(active=2), seen(queues={"a": False}), seen(main="T"), seen(state="draining")):
        assess(look, DRAIN, asked.append)
    assert asked == []


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        *[(state, "") for state in ("ready", "busy", "paused", "starting", "up", "down", "draining", "broker away")],
        ("frozen", "6 CONT 16 TERM 26 KILL"),
        ("deaf", "30 TERM 90 KILL"),
        ("stuck", "120 TERM 180 KILL"),
        ("reconnecting", "120 TERM 180 KILL"),
        ("overdue", "0 KILL"),
    ],
)
def test_it_acts_only_where_a_restart_helps(state, wanted):
    steps = remedy(Assessment(state), seen(), DRAIN)
    assert " ".join(f"{after:g} {number.name[3:]}" for after, number in steps) == wanted


def test_tasks_that_run_in_the_main_loop_may_silence_it_for_their_whole_time():
    [(after, _), _] = remedy(Assessment("stuck"), seen(pool="gevent"), 3600)
    assert after == 3600


class TestTracker:
    STEPS = ((6, signal.SIGCONT), (16, signal.SIGTERM))

    @pytest.fixture
    def said(self):
        return []

    @pytest.fixture
    def tracked(self, said):
        return Tracker(NAME, said.append)

    def test_each_step_comes_once_and_in_its_time(self, tracked):
        tracked.update(Assessment("frozen"), 10, 100)
        due = [(now, tracked.due(self.STEPS, now)) for now in (100, 105, 106, 108, 115, 117, 200)]
        assert [(now, number) for now, number in due if number] == [(106, signal.SIGCONT), (117, signal.SIGTERM)]

    def test_the_pauses_between_remedies_grow(self, tracked):
        remedied, now = [], 0
        for _ in range(8):
            tracked.update(Assessment("frozen"), 10, now)
            while not tracked.due(self.STEPS, now):
                now += 1
            remedied.append(now)
            tracked.update(Assessment("ready"), 10, now)
        assert [after - before for before, after in pairwise(remedied)] == [36, 66, 126, 246, 486, 906, 906]

    def test_after_a_long_time_earlier_remedies_do_not_count(self, tracked):
        for now in (0, 50, 5000):
            tracked.update(Assessment("frozen"), 10, now)
            assert tracked.due(self.STEPS, now + 6)
            tracked.update(Assessment("ready"), 10, now + 7)
            assert tracked.restarts == {0: 1, 50: 2, 5000: 1}[now]

    def test_it_says_what_is_news_and_nothing_else(self, tracked, said):
        for now, state in enumerate(["ready", "ready", "busy", "ready", "frozen", "frozen", "busy"]):
            tracked.update(Assessment(state, "for a reason"), 10, now)
        tracked.update(Assessment("busy"), 11, 20)
        assert said == [
            f"{NAME}, pid 10: ready - for a reason",
            f"{NAME}, pid 10: frozen - for a reason (was ready for 1 s)",
            f"{NAME}, pid 10: busy - for a reason (was frozen for 2 s)",
            f"{NAME}, pid 11: busy (was busy for 14 s)",
        ]


@pytest.fixture
def refusing_port():
    """A port at which nobody listens, nor can begin to: it is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class TestBroker:
    @pytest.fixture
    def listener(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener

    @pytest.fixture
    def port(self, listener):
        return listener.getsockname()[1]

    def test_it_answers(self, listener, port):
        def broker():
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(8) == b"AMQP\x00\x00\x09\x01"
                connection.sendall(b"\x01")

        thread = threading.Thread(target=broker)
        thread.start()
        assert watchdog.answers(f"amqp://127.0.0.1:{port}")
        thread.join()

    def test_a_frozen_broker_takes_connections_and_says_nothing(self, port, monkeypatch):
        monkeypatch.setattr(watchdog, "REPLY", 0.3)
        assert not watchdog.answers(f"amqp://127.0.0.1:{port}")
        assert watchdog.answers(f"redis://127.0.0.1:{port}")

    def test_it_is_gone(self, refusing_port):
        assert not watchdog.answers(f"amqp://127.0.0.1:{refusing_port}")
        assert not watchdog.answers("amqp://no.such.host.invalid:5672")

    def test_a_broker_that_is_nowhere_else_is_there(self):
        assert watchdog.answers("memory://")


class Lookout:
    """A watchdog over real processes, which assesses them when the test says so."""

    def __init__(self, stage, supervisor, drain_timeout=DRAIN):
        self.said = []
        self.conf_dir = stage.directory / "conf.d"
        self.conf_dir.mkdir(exist_ok=True)
        self.watchdog = Watchdog(APP, "demo", supervisor, stage.run, self.conf_dir, drain_timeout)
        self.watchdog.home = stage.directory / "srv"
        self.watchdog.say = self.watchdog.recycler.say = self.said.append

    def until(self, condition, what, seconds=15):
        """Look, as often as the real one and more, until the condition is true."""

        def looked():
            self.watchdog.run_once()
            return condition()

        return wait_until(looked, seconds, f"{what}; it said {self.said}")

    def state(self, name=PROGRAM_NAME):
        found = self.watchdog.trackers.get(name)
        return found and found.assessment and found.assessment.state

    def heard(self, words):
        return [line for line in self.said if words in line]


def beat(stage, pid, name=PROGRAM_NAME, **more):
    """Write a heartbeat as a worker would."""
    now = time.monotonic()
    path = stage.run / f"{name}.heartbeat"
    path.write_text(json.dumps(BEATS | {"pid": pid, "since": now, "beat": now, "due": 3600} | more))
    return path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(assessment, "FROZEN", (0.3, 0.8, 1.3))
    monkeypatch.setattr(assessment, "DEAF", 0.3)
    monkeypatch.setattr(assessment, "STUCK", 0.3)
    monkeypatch.setattr(tracker, "PAUSES", (0.1, 0.1))


class TestPrograms:
    def test_a_frozen_program_goes_on(self, stage, quick):
        program = stage.up()
        lookout = Lookout(stage, program.supervisor.pid)
        os.kill(program.pid, signal.SIGSTOP)
        lookout.until(lambda: lookout.state() == "frozen", "the freeze seen")
        lookout.until(lambda: proc.stat(program.pid).state != "T", "the program going on")
        assert lookout.heard(f"its main process is stopped (state T): SIGCONT sent to {program.pid}, to go on")
        lookout.until(lambda: lookout.state() != "frozen", "the recovery seen")
        assert not lookout.heard("SIGTERM")

    def test_frozen_children_go_on(self, stage, quick):
        parent = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
        program = stage.start(sys.executable, "-S", "-c", parent)
        [child] = wait_until(lambda: proc.children(program.pid), 15, "a child")
        wait_until(
            lambda: b"time.sleep" in Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")[-2], 15, "its exec"
        )
        lookout = Lookout(stage, program.supervisor.pid)
        os.kill(child.pid, signal.SIGSTOP)
        lookout.until(lambda: lookout.state() == "frozen", "the freeze seen")
        lookout.until(lambda: proc.stat(child.pid).state != "T", "the child going on")
        assert lookout.heard(f"1 of its pool processes are stopped (state T): SIGCONT sent to {child.pid}, to go on")

    def test_one_that_stays_frozen_is_killed(self, stage, quick):
        program = stage.up(*stage.program("--stubborn"))
        lookout = Lookout(stage, program.supervisor.pid)
        stopper = threading.Event()

        def keep_it_frozen():
            while not stopper.wait(0.001) and alive(program.pid):
                os.kill(program.pid, signal.SIGSTOP)

        thread = threading.Thread(target=keep_it_frozen)
        thread.start()
        try:
            lookout.until(lambda: not alive(program.pid), "its end")
        finally:
            stopper.set()
            thread.join()
        assert [number for number in ("CONT", "TERM", "KILL") if lookout.heard(f"SIG{number} sent")] == [
            *("CONT", "TERM", "KILL")
        ]

    def test_a_deaf_one_is_told_to_finish(self, stage, quick):
        program = stage.up()
        beat(stage, program.pid, queues={"a": False})
        lookout = Lookout(stage, program.supervisor.pid)
        lookout.until(lambda: not alive(program.pid), "its end")
        assert lookout.heard("does not consume from a: SIGTERM sent")
        assert stage.terms(program.pid) == 1

    def test_one_that_waits_for_its_broker_is_left_alone(self, stage, quick, refusing_port):
        program = stage.up()
        beat(stage, program.pid, connected=False, broker=f"amqp://127.0.0.1:{refusing_port}")
        lookout = Lookout(stage, program.supervisor.pid)
        for _ in range(20):
            lookout.watchdog.run_once()
            time.sleep(0.1)
        assert lookout.state() == "broker away"
        assert alive(program.pid)
        assert len(lookout.said) == 1, lookout.said

    def test_no_program_is_stuck_because_its_heartbeat_can_not_be_written(self, stage, quick, monkeypatch):
        monkeypatch.setattr(watchdog, "ROOM", 2**62)
        program = stage.up()
        beat(stage, program.pid, beat=time.monotonic() - 60, due=5, broker="memory://")
        lookout = Lookout(stage, program.supervisor.pid)
        for _ in range(10):
            lookout.watchdog.run_once()
            time.sleep(0.1)
        assert lookout.state() == "up"
        assert lookout.heard(f"its heartbeat can't be written: the file system of {stage.run} is full")
        assert alive(program.pid)

        monkeypatch.setattr(watchdog, "ROOM", 0)
        lookout.until(lambda: lookout.heard("SIGTERM sent"), "the TERM, where there is room")

    def test_what_can_not_be_written(self, tmp_path):
        assert watchdog.unwritable(tmp_path) == ""
        assert "is full" in watchdog.unwritable(Path("/proc"))
        assert "No such file" in watchdog.unwritable(tmp_path / "gone")

    @pytest.mark.parametrize(("drained", "ends"), [(DRAIN, False), (DRAIN + 31, True)])
    def test_a_drain_has_its_programs_time_and_no_more(self, stage, quick, drained, ends):
        program = stage.up(*stage.program("--stubborn"), options=("--drain-timeout", DRAIN))
        beat(stage, program.pid, state="draining", since=time.monotonic() - drained)
        lookout = Lookout(stage, program.supervisor.pid, drain_timeout=1 if ends is False else 3600)
        for _ in range(5):
            lookout.watchdog.run_once()
            time.sleep(0.1)
        assert bool(lookout.heard("SIGKILL sent")) == ends
        if ends:
            wait_until(lambda: not alive(program.pid), 15, "its end")
        assert alive(program.pid) != ends

    def test_a_heartbeat_of_an_earlier_process_counts_for_nothing(self, stage, quick):
        program = stage.up()
        beat(stage, program.pid + 1, state="draining", since=0)
        lookout = Lookout(stage, program.supervisor.pid)
        lookout.watchdog.run_once()
        assert lookout.state() == "starting"

    def test_what_should_run_and_does_not_is_down_and_what_is_gone_is_forgotten(self, stage, monkeypatch):
        monkeypatch.setattr(watchdog, "GONE", 0.2)
        program = stage.up()
        heartbeat = beat(stage, program.pid)
        lookout = Lookout(stage, program.supervisor.pid)
        conf = lookout.conf_dir / f"{PROGRAM_NAME}.conf"
        conf.write_text("command=/srv/demo/venv/bin/celery-ops-guard ...\n")
        lookout.until(lambda: lookout.state() == "ready", "its heartbeat read")
        program.stop()
        lookout.until(lambda: lookout.state() == "down", "that it is down")
        assert heartbeat.exists()
        conf.unlink()
        lookout.watchdog.run_once()
        assert lookout.state() is None
        assert not heartbeat.exists()
        assert lookout.said[-1] == f"{PROGRAM_NAME}: gone (was down)"


class TestOrphans:
    def test_one_that_lost_its_supervisor_finishes_its_work(self, stage):
        program = stage.up(*stage.program("--deaf", "--work", 1))
        program.lose_supervisor()
        lookout = Lookout(stage, os.getpid())
        lookout.until(lambda: not alive(program.pid), "its end")
        assert stage.terms(program.pid) == 1
        lookout.until(lambda: lookout.heard("has ended"), "a word about its end")

    def test_one_that_does_not_finish_is_killed(self, stage):
        program = stage.up(*stage.program("--deaf", "--stubborn"), options=("--drain-timeout", 0.5))
        program.lose_supervisor()
        lookout = Lookout(stage, os.getpid(), drain_timeout=3600)
        lookout.until(lambda: not alive(program.pid), "its end")
        assert lookout.heard("SIGTERM sent")
        assert lookout.heard("did not finish within 0.5 s: SIGKILL sent")

    def test_one_under_another_supervisor_than_ours_is_an_orphan(self, stage):
        ours = stage.up()
        theirs = stage.start(
            *(sys.executable, "-S", "-c", "import time; time.sleep(60)"),
            name=f"{APP}-worker-2b3c4d5e",
            pidfile=stage.run / "other.pid",
        )
        wait_until(theirs.is_the_program, 15, "the other program")
        lookout = Lookout(stage, ours.supervisor.pid)
        lookout.until(lambda: not alive(theirs.pid), "its end")
        assert alive(ours.pid)


class TestRecycling:
    STAND_IN = stand_in_of(PROGRAM_NAME)

    @pytest.fixture
    def outgrown(self, stage, quick, monkeypatch):
        """A worker that takes more than it may, and a watchdog that has seen it."""
        monkeypatch.setattr(recycling, "PAUSES", (0.0, 0.0))

        def start(*options):
            program = stage.up(options=("--max-memory", 1024, *options), environment={"PATH": os.environ["PATH"]})
            beat(stage, program.pid)
            lookout = Lookout(stage, program.supervisor.pid)
            words = [
                *(sys.executable, "-m", "celery_ops.cli.guard", "--app", APP, "--program", PROGRAM_NAME),
                *("--pidfile", stage.run / f"{PROGRAM_NAME}.pid", "--max-memory", 1024, "--", sys.executable, "-S"),
                *(stage.script, "--pidfile", stage.run / f"{PROGRAM_NAME}.pid"),
            ]
            command = " ".join(map(str, words))
            (lookout.conf_dir / f"{PROGRAM_NAME}.conf").write_text(f"[program:{PROGRAM_NAME}]\ncommand={command}\n")
            return program, lookout

        return start

    def stand_in(self, stage):
        """Its pid, once it runs."""
        file = stage.run / f"{self.STAND_IN}.pid"
        return int(file.read_text()) if file.exists() and file.read_text().strip() else None

    def test_a_stand_in_works_while_the_worker_is_replaced(self, stage, outgrown):
        assert program_of(self.STAND_IN) == program_of(PROGRAM_NAME), "it is the same program in the metrics"
        program, lookout = outgrown()
        pid = lookout.until(lambda: self.stand_in(stage), "a stand-in")
        for _ in range(5):
            lookout.watchdog.run_once()
        assert alive(program.pid), "before the stand-in consumes, nothing ends"
        assert alive(pid), "it is no orphan"
        beat(stage, pid, self.STAND_IN)
        lookout.until(lambda: not alive(program.pid), "the end of the old one")
        again = stage.up(options=("--max-memory", 10**12))
        lookout.watchdog.supervisor = again.supervisor.pid
        for _ in range(5):
            lookout.watchdog.run_once()
        assert alive(pid), "before the new one is ready, it works on"
        beat(stage, again.pid)
        lookout.until(lambda: not alive(pid), "the end of the stand-in")
        lookout.until(lambda: lookout.watchdog.recycler.current is None, "the end of it all")
        assert lookout.watchdog.orphans == {}, "it was never one"
        assert not lookout.heard("has ended"), lookout.said
        assert alive(again.pid)
        about = lookout.watchdog.about()["programs"][PROGRAM_NAME]
        assert (about["recycled"], about["recycling"]) == (1, False)
        assert about["memory"] > 2**20

    def test_a_stand_in_that_ends_while_the_watchdog_looks_is_no_orphan(self, stage, outgrown, monkeypatch):
        program, lookout = outgrown()
        pid = lookout.until(lambda: self.stand_in(stage), "a stand-in")
        os.kill(pid, signal.SIGSTOP)
        program.stop()
        lookout.until(lambda: lookout.watchdog.recycler.current.over, "that nobody needs it")
        read_processes = watchdog.of_this_user

        def then_it_ends():
            processes = read_processes()
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: not alive(pid), 15, "the end of the stand-in")
            return processes

        monkeypatch.setattr(watchdog, "of_this_user", then_it_ends)
        lookout.watchdog.run_once()
        assert lookout.watchdog.recycler.current is None
        assert lookout.watchdog.orphans == {}

    def test_one_that_must_be_alone_is_told_to_finish(self, stage, outgrown):
        program, lookout = outgrown("--no-stand-in")
        lookout.until(lambda: not alive(program.pid), "its end")
        assert self.stand_in(stage) is None

    def test_without_a_stand_in_that_consumes_the_worker_is_left_alone(self, stage, outgrown, monkeypatch):
        monkeypatch.setattr(recycling, "START", 0.5)
        program, lookout = outgrown()
        pid = lookout.until(lambda: self.stand_in(stage), "a stand-in")
        lookout.until(lambda: not alive(pid), "the end of the stand-in")
        assert lookout.heard("does not consume")
        assert alive(program.pid)

    def test_the_stand_in_finishes_when_the_watchdog_is_gone(self, stage, outgrown):
        script = (
            "import sys, time; from pathlib import Path; from celery_ops.watchdog import recycling;"
            "from celery_ops.watchdog.watchdog import Watchdog; recycling.PAUSES = (0, 0)\n"
            "w = Watchdog(sys.argv[1], 'demo', int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), 60)\n"
            "while True: w.run_once(); time.sleep(0.05)"
        )
        program, lookout = outgrown()
        words = (APP, program.supervisor.pid, stage.run, lookout.conf_dir)
        process = stage.spawn(sys.executable, "-c", script, *words, env=clean_environment())
        pid = wait_until(lambda: self.stand_in(stage), 15, "a stand-in")
        process.kill()
        wait_until(lambda: not alive(pid), 15, "its end")
        assert alive(program.pid)

    @pytest.mark.parametrize("limit", ["--max-memory=0", f"--max-memory={10**12}"])
    def test_one_within_its_limit_is_left_alone(self, stage, outgrown, limit):
        program, lookout = outgrown(limit)
        for _ in range(5):
            lookout.watchdog.run_once()
        assert lookout.watchdog.recycler.current is None
        assert alive(program.pid)

    def test_in_vain_it_is_tried_less_and_less_often(self):
        recycler = recycling.Recycler(Path("/nowhere"), Path("/nowhere"), read, lambda _: None)

        def begins(now, age=1000.0, outgrown=500.0):
            """Look at a worker that takes too much, and whether that begins to replace it."""
            main = Process(os.getpid(), "S", 1, 10, process(age=age).start, max_memory=1024, has_stand_in=False)
            recycler.records.setdefault(NAME, recycling.Record()).age = outgrown
            recycler.look(Seen(NAME, main), "ready", now)
            begun, recycler.current = recycler.current is not None, None
            return begun

        assert not begins(0, age=29), "too young"
        recycler.records[NAME].pid = os.getpid()
        times, now = [], 0
        while now < 3000:
            times += [now] if begins(now, outgrown=20) else []
            now += 10
        assert times == [0, 30, 90, 210, 450, 930, 1830, 2730]
        recycler.records[NAME].tried = False  # another process, which took its time
        assert begins(4000)
        recycler.records[NAME].tried = False
        assert [begins(4020), begins(4030)] == [False, True]


CELERY = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\ntime.sleep(60)\n"


@pytest.fixture
def by_hand(stage):
    """Start programs that look like celery, from a directory that looks like a release's or not."""

    def start(*words, script="srv/releases/1/venv/bin/celery", **options):
        path = stage.directory / script
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CELERY)
        started = stage.spawn(sys.executable, path, *words, env=clean_environment(), **options)
        wait_until(lambda: proc.stat(started.pid).state == "S", 15, "it sleeping")
        return started

    return start


class TestStartedByHand:
    @pytest.mark.parametrize(
        "words",
        [
            "-A demo worker -l INFO",
            "--app=demo worker",
            "-Ademo.celery:app beat",
            "-q --workdir worker -A demo worker -Q a",
        ],
    )
    def test_a_worker_or_scheduler_of_ours_is_told_to_finish(self, stage, by_hand, words):
        started = by_hand(*words.split())
        lookout = Lookout(stage, 1)
        lookout.until(lambda: started.poll() is not None, "its end")
        assert lookout.heard("started by hand")

    @pytest.mark.parametrize(
        ("words", "script"),
        [
            ("-A demo call worker", "srv/releases/1/venv/bin/celery"),
            ("-A demo inspect ping", "srv/releases/1/venv/bin/celery"),
            ("-A demo shell", "srv/releases/1/venv/bin/celery"),
            ("-A other worker", "srv/releases/1/venv/bin/celery"),
            ("worker", "srv/releases/1/venv/bin/celery"),
            ("-A demo worker", "elsewhere/bin/celery"),
            ("-A demo worker", "srv-other/venv/bin/celery"),
            ("-A demo worker", "srv/releases/1/venv/bin/celery-exporter"),
        ],
    )
    def test_look_alikes_are_left_alone(self, stage, by_hand, words, script):
        started = by_hand(*words.split(), script=script)
        assert orphans.celery_command(started.pid, "demo", stage.directory / "srv") == ""

    def test_neither_are_other_programs_with_such_words_or_our_supervisors_children_touched(self, stage, by_hand):
        script = stage.directory / "srv/releases/1/venv/bin/celery"
        child = by_hand("-A", "demo", "worker")  # of this process, whom the watchdog takes for supervisord
        others = [
            stage.spawn("tail", "-f", script, stdout=subprocess.DEVNULL),
            stage.spawn(*("bash", "-c", "exec -a celery sleep 60")),
            stage.spawn(*("bash", "-c", "read; true", script, "-A", "demo", "worker"), stdin=subprocess.PIPE),
        ]
        lookout = Lookout(stage, os.getpid())
        for _ in range(5):
            lookout.watchdog.run_once()
        lookout_elsewhere = Lookout(stage, 1)
        for _ in range(5):
            lookout_elsewhere.watchdog.run_once()
        wait_until(lambda: child.poll() is not None, 15, "the end of the one that is ours")
        assert lookout.said == []
        assert [other.poll() for other in others] == [None, None, None]


def test_the_watchdog_itself_under_the_guard(stage):
    """Started like any program; ends at once when told to."""
    (stage.directory / "conf.d").mkdir()
    started = stage.start(
        *(sys.executable, "-m", "celery_ops.cli.watchdog", "-A", "demo", "--conf-dir", stage.directory / "conf.d"),
        name=f"{APP}-watchdog-1a2b3c4d",
    )
    path = stage.run / f"{APP}-watchdog-1a2b3c4d.heartbeat"
    wait_until(path.exists, 15, f"its heartbeat:\n{started.output}")
    beat_ = read(path)
    assert (beat_["kind"], beat_["pid"], beat_["programs"], beat_["orphans"]) == ("watchdog", started.pid, {}, [])
    assert started.stop() == 0
    assert f"the watchdog of {APP} starts" in started.output


WAITS = """
import signal
from celery_ops.cli import watchdog
watchdog.INTERVAL = 0.3
stop = {signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, stop)
print("up", flush=True)
while not watchdog.told_to_stop(stop):
    print("round", flush=True)
"""


def test_a_watchdog_that_was_frozen_goes_on():
    """Python's sigtimedwait answers after SIGCONT, as if there had been a signal."""
    command = [sys.executable, "-c", WAITS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment())
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "round\n"]
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: proc.stat(process.pid).state == "T", 10, "the stop")
    frozen = time.monotonic()
    wait_until(lambda: time.monotonic() - frozen > 0.6, 10, "more than a round")
    process.send_signal(signal.SIGCONT)
    assert [process.stdout.readline() for _ in range(2)] == ["round\n", "round\n"]
    process.terminate()
    assert process.wait(10) == 0
