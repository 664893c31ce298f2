"""What a real supervisord makes of templates/supervisor/program.conf.j2 when a program ends right after its start."""

from __future__ import annotations

import subprocess
import sys
import xmlrpc.client
from itertools import pairwise
from pathlib import Path

import pytest
from supervisor.xmlrpc import SupervisorTransport
from support.wait import wait_until

TEMPLATE = Path(__file__).resolve().parents[2] / "templates" / "supervisor" / "program.conf.j2"
NAME = "petct-any-01234567"
# Ends at once, as a worker does whose credentials are wrong, until the cause is gone.
PROGRAM = """
import pathlib, sys, time
directory = pathlib.Path(sys.argv[1])
with (directory / "starts").open("a") as starts:
    print(time.time(), file=starts)
if not (directory / "put-right").exists():
    sys.exit("the password is wrong")
time.sleep(600)
"""


@pytest.fixture
def state(tmp_path: Path, render):
    """Runs the program under a supervisord; returns what supervisorctl would call its state."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} -S {tmp_path}/program.py {tmp_path}"
    program = {"name": NAME, "owner": "petct-any-", "log": f"{tmp_path}/log", "command": command}
    program |= {"startsecs": 2, "stop_timeout": 5, "syslog": False}
    socket, conf = tmp_path / "socket", tmp_path / "supervisord.conf"
    conf.write_text(
        f"[unix_http_server]\nfile={socket}\n[supervisord]\nlogfile={tmp_path}/supervisord.log\n"
        f"pidfile={tmp_path}/pid\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[include]\nfiles={tmp_path}/*.program\n"
    )
    (tmp_path / "any.program").write_text(render(TEMPLATE, program=program))
    daemon = subprocess.Popen([Path(sys.executable).with_name("supervisord"), "--nodaemon", "--silent", "-c", conf])
    transport = SupervisorTransport(None, None, f"unix://{socket}")
    rpc = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
    wait_until(socket.exists, 40, "supervisord's socket")
    yield lambda: rpc.getProcessInfo(NAME)["statename"]
    daemon.terminate()
    daemon.wait(20)


def test_a_program_that_ends_at_once_is_tried_again_and_comes_back_when_the_cause_is_gone(state, tmp_path):
    wait_until(lambda: state() == "BACKOFF", 10, "BACKOFF, so that a deploy sees it at once")
    starts = wait_until(
        lambda: len(found := (tmp_path / "starts").read_text().split()) == 4 and found, 40, "four starts"
    )
    pauses = [float(after) - float(before) for before, after in pairwise(starts)]
    assert pauses[0] < pauses[2]
    (tmp_path / "put-right").touch()
    wait_until(lambda: state() == "RUNNING", 40, "RUNNING, with nobody's help")


@pytest.mark.parametrize(("program", "seconds"), [("petct-scheduler", 2), ("petct-worker-default", 10)])
def test_it_is_never_given_up(arguments, program, seconds):
    conf = arguments("all")[program]["conf"]
    settings = dict(line.split("=", 1) for line in conf.splitlines() if "=" in line)
    # A pause more each time: a million of them are longer than anybody waits.
    assert int(settings["startretries"]) == 1_000_000
    assert int(settings["startsecs"]) == seconds
