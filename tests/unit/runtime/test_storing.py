"""Time limits while the result store is away: a task that is done stays done."""

import json
import os
import signal
import socket
import time
from contextlib import contextmanager
from threading import Thread

import pytest
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from billiard.pool import TimeoutHandler, soft_timeout_sighandler
from celery.concurrency.asynpool import AsynPool
from celery_ops.worker import storing
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from support.directory_broker import application
from support.wait import wait_until

TASKS = """
app.conf.result_backend = "redis://127.0.0.1:{port}/0"

@app.task(name="demo.quick", soft_time_limit=1, time_limit=2)
def quick():
    with Path("{directory}", "ran").open("a") as file:
        file.write("once ")
    return 7

@app.task(name="demo.fails", soft_time_limit=1, time_limit=2)
def fails():
    raise KeyError("of its own")
"""


class Redis:
    """As much of a Redis as a worker needs to store results; `stored` has them by task."""

    def __init__(self, listener):
        self.listener, self.stored = listener, {}
        Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        stream, queued = connection.makefile("rwb"), None
        while head := stream.readline():
            words = []
            for _ in range(int(head[1:])):
                words.append(stream.read(int(stream.readline()[1:]) + 2)[:-2])
            command, answer = words[0].upper(), b"+OK\r\n"
            if command in (b"SETEX", b"SET"):
                found = json.loads(words[-1] if command == b"SETEX" else words[2])
                self.stored[found["task_id"]] = found
            if command == b"MULTI":
                queued = 0
            elif command == b"EXEC":
                answer, queued = b"*%d\r\n" % queued + b":1\r\n" * queued, None
            elif command in (b"GET", b"MGET"):
                answer = b"$-1\r\n"
            elif queued is not None:
                answer, queued = b"+QUEUED\r\n", queued + 1
            stream.write(answer)
            stream.flush()


def test_a_task_that_is_done_stays_done_though_its_time_ends_while_its_result_waits(stage):
    with socket.socket() as store:
        store.bind(("127.0.0.1", 0))  # refuses, until it listens
        code = TASKS.format(port=store.getsockname()[1], directory=stage.directory)
        app = application(stage.directory, code)
        app.conf.result_backend = "disabled://"  # of this process, which only sends
        worker = stage.worker("1a2b3c4d", "-c", "2", "-l", "INFO")
        wait_until(lambda: " ready." in worker.output, 30, f"the worker:\n{worker.output}")
        for name in ("quick", "fails"):
            app.send_task(f"demo.{name}", task_id=name)
        wait_until(lambda: worker.output.count("The result store is away") > 1, 20, f"the tasks:\n{worker.output}")
        since = time.monotonic()
        wait_until(lambda: time.monotonic() > since + 5, 10, "the end of both limits")
        store.listen()
        redis = Redis(store)
        wait_until(lambda: len(redis.stored) == 2, 20, f"the results:\n{worker.output}")
        quick, fails = redis.stored["quick"], redis.stored["fails"]
        assert (quick["status"], quick["result"]) == ("SUCCESS", 7)
        assert (fails["status"], fails["result"]["exc_type"]) == ("FAILURE", "KeyError")
        assert worker.stop() == 0
    assert "ime limit" not in worker.output and "LimitExceeded" not in worker.output
    assert (stage.directory / "ran").read_text() == "once "


@pytest.fixture
def wrapped(monkeypatch):
    for name in ("on_soft_timeout", "on_hard_timeout"):
        monkeypatch.setattr(TimeoutHandler, name, getattr(TimeoutHandler, name))
    storing._wrap()


@contextmanager
def pool():
    """A pool as a worker has it with RabbitMQ, and a way to run it until something is so."""
    before = get_event_loop()
    hub = Hub()
    set_event_loop(hub)
    made = AsynPool(1, threads=False, enable_timeouts=True)
    made.register_with_event_loop(hub)

    def run_until(is_so):
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            hub.call_later(0.1, lambda: None)
            hub.run_once()

    try:
        yield made, run_until
    finally:
        for process in made._pool:
            os.kill(process.pid, signal.SIGKILL)
        hub.close()
        set_event_loop(before)


def stores_for(seconds):
    with storing.without_time_limits():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
    return "done"


def takes(seconds):
    time.sleep(seconds)


@pytest.mark.parametrize(
    ("target", "limits", "longest", "expected"),
    [
        (stores_for, {"soft_timeout": 0.5, "timeout": 1}, 300, "done"),
        (stores_for, {"soft_timeout": 0.5}, 300, "done"),
        (stores_for, {"timeout": 1}, 1, TimeLimitExceeded),
        (takes, {"timeout": 1}, 300, TimeLimitExceeded),
        (takes, {"soft_timeout": 0.5, "timeout": 10}, 300, SoftTimeLimitExceeded),
    ],
)
def test_limits_with_an_event_loop(wrapped, monkeypatch, target, limits, longest, expected):
    monkeypatch.setattr(storing, "LONGEST", longest)
    ended = []
    with pool() as (made, run_until):
        made.apply_async(
            target,
            (4,),
            callback=ended.append,
            error_callback=lambda info: ended.append(type(getattr(info.exception, "exc", info.exception))),
            **limits,
        )
        run_until(lambda: ended)
    assert ended == [expected]


def test_outside_of_a_pool_nothing_is_ignored():
    own = signal.getsignal(signal.SIGUSR1)
    with storing.without_time_limits():
        assert signal.getsignal(signal.SIGUSR1) is own
    assert not storing.is_storing(os.getpid()) and not storing.is_storing(None)


def test_the_soft_limit_holds_again_after_it():
    own = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    try:
        with storing.without_time_limits():
            assert storing.is_storing(os.getpid())
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(SoftTimeLimitExceeded):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5)
    finally:
        signal.signal(signal.SIGUSR1, own)
