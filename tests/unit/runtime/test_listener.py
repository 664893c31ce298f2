"""The listener with real sockets, and a real gunicorn replaced under a steady client."""

import contextlib
import http.client
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from celery_ops.launch import listener
from support.stage import BIN, SUPERVISOR, Started, alive, clean_environment
from support.wait import wait_until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

APP = """
import os, pathlib, time
def app(environ, start_response):
    if environ["QUERY_STRING"]:
        pathlib.Path("slow").touch()
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ["CELERY_OPS_PROGRAM"].encode()]
"""


LISTENER = ("-m", "celery_ops.launch.listener")
# An address of this process's own, of the 127.0.0.0/8 that loopback is: a port that is free there stays free.
HOST = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@pytest.fixture
def web(stage):
    """Starts listeners and gunicorns on one address."""
    (stage.directory / "wsgi.py").write_text(APP)

    class Web:
        def __init__(self):
            self.port = free_port()
            self.socket = stage.run / "listener.sock"
            self.listeners = []

        def listen(self, *options, bind=None, program="web-listener"):
            """A listener as Supervisor starts it; by hand without `program`."""
            log = stage.directory / f"listener-{len(self.listeners)}"
            arguments = ["--bind", bind or f"{HOST}:{self.port}", "--socket", str(self.socket), *options]
            with log.open("w") as output:
                process = subprocess.Popen(
                    [sys.executable, "-S", "-c", SUPERVISOR, sys.executable, *LISTENER, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=output,
                    text=True,
                    env=clean_environment(**({"SUPERVISOR_PROCESS_NAME": program} if program else {})),
                )
            self.listeners.append(Started(process, log))
            return self.listeners[-1]

        def up(self, *options, **others):
            started = self.listen(*options, **others)
            wait_until(lambda: "hands it out at" in started.output, 15, "the listener is up")
            return started

        def gunicorn(self, name, *options, wait=True, environment=None):
            command = [BIN / "gunicorn", "--workers", "2", "--threads", "2", "--graceful-timeout", "10", "wsgi:app"]
            options = ["--listen-from", self.socket, *options]
            pidfile = stage.run / f"{name}.pid"
            started = stage.start(*command, name=name, pidfile=pidfile, options=options, environment=environment)
            if wait:
                wait_until(lambda: started.output.count("Booting worker") == 2, 15, f"{name} is up:\n{started.output}")
            return started

        def get(self, query="", timeout=15):
            connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
            with contextlib.closing(connection):
                connection.request("GET", f"/?{query}")
                return connection.getresponse().read().decode()

    web = Web()
    yield web
    for one in web.listeners:
        one.supervisor.kill()
        one.supervisor.wait()
        one.supervisor.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)


@contextlib.contextmanager
def steady_client(web):
    """Ask every 10 ms from a connection of its own each time; yields the answers and the errors."""
    answers, errors, over = [], [], threading.Event()

    def ask():
        while not over.is_set():
            try:
                answers.append(web.get())
            except OSError as error:
                errors.append(repr(error))
            time.sleep(0.01)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield answers, errors
    finally:
        over.set()
        for client in clients:
            client.join()


def test_replacing_gunicorn_refuses_no_connection(web):
    web.up()
    old = web.gunicorn("web-old")
    with steady_client(web) as (answers, errors):
        wait_until(lambda: len(answers) > 20, 15, "the old one answers")
        new = web.gunicorn("web-new")
        wait_until(lambda: {"web-old", "web-new"} <= set(answers[-50:]), 15, "both answer")
        assert old.stop() == 0
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 50, 15, "the new one answers")
    assert errors == []
    assert set(answers[-40:]) == {"web-new"}
    assert alive(new.pid)


def test_gunicorn_killed_outright_refuses_no_connection(web):
    """Until its successor is up, connections wait in the backlog; those it was serving are lost."""
    web.up()
    old = web.gunicorn("web")
    assert web.get() == "web"
    os.killpg(old.pid, signal.SIGKILL)
    old.exit_status()
    waiting = []
    client = threading.Thread(target=lambda: waiting.append(web.get()))
    client.start()
    web.gunicorn("web")
    client.join()
    assert waiting == ["web"]


def test_gunicorn_finishes_a_running_request_when_stopped(web, stage):
    web.up()
    old = web.gunicorn("web")
    slow = []
    client = threading.Thread(target=lambda: slow.append(web.get("1")))
    client.start()
    wait_until((stage.directory / "slow").exists, 15, "the request is being served")
    assert old.stop() == 0
    client.join()
    assert slow == ["web"]


def test_listener_goes_on_listening_while_no_web_server_runs(web):
    web.up()
    web.gunicorn("web").stop()
    with socket.create_connection((HOST, web.port), timeout=1):
        pass


def test_socket_is_the_same_for_all(web):
    web.up()
    received = [socket.socket(fileno=listener.receive(web.socket, 1, lambda: None)) for _ in range(2)]
    assert {one.getsockname() for one in received} == {(HOST, web.port)}
    for one in received:
        one.close()
    with socket.create_connection((HOST, web.port), timeout=1):
        pass


@as_root
def test_other_users_are_refused(open_stage):
    path, port = open_stage.run / "listener.sock", free_port()
    command = [sys.executable, *LISTENER, "--bind", f"{HOST}:{port}", "--socket", path]
    process = open_stage.spawn(*command, "--user", "nobody", stderr=subprocess.PIPE, text=True, env=clean_environment())
    # A directory of root's: the listener, no longer root, says so.
    assert "does its directory belong to this user?" in process.stderr.readline()
    os.chown(open_stage.run, pwd.getpwnam("nobody").pw_uid, -1)
    process = open_stage.spawn(*command, "--user", "nobody", stderr=subprocess.PIPE, text=True, env=clean_environment())
    assert "hands it out at" in process.stderr.readline()
    path.chmod(0o777)  # the check must not rest on the file's mode
    ask = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); "
        "print(len(socket.recv_fds(s, 99, 1)[1]))"
    )
    other = ["setpriv", "--reuid", "1", "--clear-groups", "/usr/bin/python3", "-S", "-c", ask]
    assert subprocess.run(other, capture_output=True, text=True).stdout == "0\n"
    assert "of uid 1" in process.stderr.readline()
    allowed = subprocess.run(["/usr/bin/python3", "-S", "-c", ask], capture_output=True, text=True)
    assert allowed.stdout == "1\n"


@as_root
def test_a_new_generation_takes_over_from_one_that_has_dropped_root(open_stage):
    path, port = open_stage.run / "listener.sock", free_port()
    os.chown(open_stage.run, pwd.getpwnam("nobody").pw_uid, -1)
    command = [sys.executable, *LISTENER, "--bind", f"{HOST}:{port}", "--socket", path]
    said = []
    for program in ("web-listener-1", "web-listener-2"):
        environment = clean_environment(SUPERVISOR_PROCESS_NAME=program)
        process = open_stage.spawn(*command, "--user", "nobody", stderr=subprocess.PIPE, text=True, env=environment)
        said.append((process.pid, process.stderr.readline()))
    assert f"took {HOST}:{port} over from pid {said[0][0]}\n" in said[1][1]


def test_a_listener_started_by_hand_leaves_the_first_alone(web):
    first = web.up()
    second = web.listen(program="")
    assert second.supervisor.wait(10) == 73
    assert f"a listener runs already: pid {first.pid}" in second.output
    listener.receive(web.socket, 1, lambda: None)


def end(started):
    """Stop a listener as Supervisor does, and wait for its end."""
    os.kill(started.pid, signal.SIGTERM)
    assert started.supervisor.wait(5) == 0


def test_a_new_generation_of_the_listener_refuses_no_connection(web):
    """Web servers of both sides of it are served from one socket."""
    old = web.up()
    before = web.gunicorn("web-before")
    with steady_client(web) as (answers, errors):
        wait_until(lambda: len(answers) > 20, 15, "it answers")
        new = web.up()
        assert f"took {HOST}:{web.port} over from pid {old.pid}\n" in new.output
        after = web.gunicorn("web-after")
        end(old)
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 20, 15, "it still answers")
        assert before.stop() == 0
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 20, 15, "it answers from the new one")
    assert errors == []
    assert set(answers[-20:]) == {"web-after"}
    assert alive(after.pid)
    end(new)
    assert list(web.socket.parent.glob(f"{web.socket.name}*")) == []


def test_no_connection_is_refused_while_listeners_change_and_no_web_server_accepts(web):
    """Connections that wait in the backlog are served in the end."""
    listener_now = web.up()
    waiting = []
    client = threading.Thread(target=lambda: waiting.append(web.get()))
    client.start()
    for _ in range(3):
        successor = web.up()
        end(listener_now)
        listener_now = successor
        with socket.create_connection((HOST, web.port), timeout=1):
            pass
    web.gunicorn("web")
    client.join()
    assert waiting == ["web"]


def test_the_listener_before_serves_again_when_the_new_one_goes_first(web):
    """So a deploy that fails goes back: what starts then finds the listener that was there."""
    old = web.up()
    new = web.up()
    end(new)
    web.gunicorn("web")
    assert web.get() == "web"
    assert alive(old.pid)
    end(old)
    assert list(web.socket.parent.glob(f"{web.socket.name}*")) == []


# What a listener of before this did, in few words: it hands the socket out, and removes its own file only.
EARLIER = """
import contextlib, json, os, socket, sys
listening = socket.create_server((sys.argv[3], int(sys.argv[1])), backlog=2048, reuse_port=True)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[2])
server.listen(16)
print("hands it out at", file=sys.stderr, flush=True)
while True:
    with server.accept()[0] as connection, contextlib.suppress(OSError):
        message = json.dumps({"pid": os.getpid(), "orphaned": False}).encode()
        socket.send_fds(connection, [message], [listening.fileno()])
"""


def test_a_listener_of_an_earlier_version_is_succeeded_and_serves_again(web, stage):
    old = stage.spawn(sys.executable, "-c", EARLIER, web.port, web.socket, HOST, stderr=subprocess.PIPE)
    old.stderr.readline()
    end(web.up())
    web.gunicorn("web-before")
    with steady_client(web) as (answers, errors):
        new = web.up()
        assert f"over from pid {old.pid}" in new.output
        old.kill()
        old.wait()
        web.gunicorn("web-after")
        wait_until(lambda: {"web-before", "web-after"} <= set(answers), 15, "both answer")
    assert errors == []
    old.stderr.close()


def test_port_taken_by_another_program(web):
    with socket.socket() as other:
        other.bind((HOST, web.port))
        other.listen()
        started = web.listen()
        assert started.supervisor.wait(10) == 78
    assert f"see who has it: ss -ltnp 'sport = :{web.port}'" in started.output


@pytest.mark.parametrize("bind", ["8000x", "127.0.0.1:", "127.0.0.1:99999999999999999999", "no.such.host.invalid:1"])
def test_senseless_address(web, bind):
    started = web.listen(bind=bind)
    assert started.supervisor.wait(10) == 78
    assert f"--bind {bind}: " in started.output
    assert "Traceback" not in started.output


def test_leaves_at_once_when_told_to(web):
    started = web.up()
    os.kill(started.pid, signal.SIGTERM)
    assert started.supervisor.wait(5) == 0
    assert not web.socket.exists()


def test_stale_socket_file_is_replaced(web):
    os.kill(web.up().pid, signal.SIGKILL)
    assert web.socket.exists()
    web.up()


def test_supervisor_killed_refuses_no_connection(web):
    """The listener outlives its supervisor until the next one's listener has taken the socket over."""
    old = web.up()
    server = web.gunicorn("web")
    with steady_client(web) as (answers, errors):
        wait_until(lambda: len(answers) > 20, 15, "it answers")
        old.supervisor.kill()
        server.lose_supervisor()
        wait_until(lambda: not alive(server.pid), 15, "gunicorn has gone")
        new = web.up()
        wait_until(lambda: not alive(old.pid), 15, "the old listener has gone")
        web.gunicorn("web")
        seen = len(answers)
        wait_until(lambda: len(answers) > seen + 20, 15, "it answers again")
    assert f"took {HOST}:{web.port} over from pid {old.pid}" in new.output
    assert errors == []


def test_restarted_listener_binds_beside_the_running_web_server(web):
    """Both sockets get connections until the web server is replaced too; none of them is refused."""
    old = web.up()
    server = web.gunicorn("web-old")
    os.kill(old.pid, signal.SIGTERM)
    old.supervisor.wait(5)
    web.up()
    with steady_client(web) as (answers, errors):
        web.gunicorn("web-new")
        wait_until(lambda: {"web-old", "web-new"} <= set(answers), 15, "both answer")
    assert errors == []
    server.stop()
    assert web.get() == "web-new"


def test_guard_waits_for_the_listener_and_heeds_term(web, stage):
    started = web.gunicorn("web", wait=False)
    wait_until(lambda: (stage.run / "web.pid.lock").exists(), 15, "the guard waits")
    web.up()
    wait_until(lambda: started.output.count("Booting worker") == 2, 15, "gunicorn is up")
    waiting = web.listeners[0]
    os.kill(waiting.pid, signal.SIGTERM)
    waiting.supervisor.wait(5)
    other = web.gunicorn("other", wait=False)
    wait_until(lambda: (stage.run / "other.pid.lock").exists(), 15, "the guard waits")
    assert other.stop() == 0
    assert "told to stop while waiting" in other.output


def closed(path, *names, **more):
    entries = [
        {"what": "web", "name": name, "since": 1.0, "until": None, "who": "", "why": "", **more} for name in names
    ]
    path.write_text(json.dumps(entries))


def test_while_the_web_is_closed_the_listener_answers_503_and_no_connection_is_refused(web, stage):
    path = stage.directory / "pause.json"
    environment = {"CELERY_OPS_STATE_DIR": str(stage.directory)}
    started = web.up("--pause", str(path))
    old = web.gunicorn("web-old", environment=environment)
    with steady_client(web) as (answers, errors):
        wait_until(lambda: len(answers) > 20, 15, "the program answers")
        closed(path, "")
        wait_until(lambda: "answers 503" in started.output, 15, "the listener is closed")
        assert old.stop() == 0
        again = web.gunicorn("web-old", wait=False, environment=environment)
        wait_until(lambda: "closed for maintenance" in again.output, 15, "the guard waits")
        wait_until(lambda: all("Maintenance" in answer for answer in answers[-20:]), 15, "all are answered 503")
        path.write_text("[]")
        wait_until(lambda: answers[-20:] == ["web-old"] * 20, 20, f"it serves again:\n{again.output}")
    assert errors == []


def test_the_end_of_the_maintenance_is_told_and_a_program_that_comes_later_may_serve(web, stage):
    path = stage.directory / "pause.json"
    closed(path, "web-old", until=time.time() + 100)
    web.up("--pause", str(path))
    connection = http.client.HTTPConnection(HOST, web.port, timeout=15)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 503
        assert 90 <= int(answer.headers["Retry-After"]) <= 100
    environment = {"CELERY_OPS_STATE_DIR": str(stage.directory)}
    waits = web.gunicorn("web-old", wait=False, environment=environment)
    web.gunicorn("web-new", environment=environment)
    assert "closed for maintenance" in waits.output
    waits.stop()


def test_a_damaged_file_closes_nothing(tmp_path):
    path = tmp_path / "pause.json"
    for text in ("", "{", "[1]", "3", '[{"what": "web", "until": 1.0}]', '[{"what": "all"}]'):
        path.write_text(text)
        assert listener.closed_until(path) is None
