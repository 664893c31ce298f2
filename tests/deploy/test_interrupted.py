"""Whatever becomes of the control node: the work on a host ends by itself, or the next run takes over, soundly."""

import json
import os
import signal
import subprocess

import pytest
from support.control import play, start
from support.host import APP
from support.load import Load
from support.long import LONG
from support.wait import wait_until

HOLD = "/var/lib/petct/let-go"
"""The file that ends the long task, and so the drain."""


def let_go(hosts):
    """End the long task."""
    for host in hosts:
        host.ask(f"touch {HOLD}")


def work(host):
    """The process that works on the host, as it says itself."""
    text = host.ask(f"flock -n -s /run/celery-ops/{APP}/work true || cat /run/celery-ops/{APP}/work")
    return json.loads(text) if text else {}


def release_of(host, program):
    return host.ask(f"grep -o 'releases/[0-9a-f]*' /etc/supervisor/conf.d/{program}.conf | head -n 1").split("/")[-1]


HOOK = """
- name: Say that the next phase may be prepared
  ansible.builtin.file: {path: /var/lib/petct/ready, state: touch, mode: "0644"}
- name: Wait
  ansible.builtin.wait_for: {path: /var/lib/petct/go, timeout: 120}
"""


@pytest.fixture
def draining(hosts, variants, settings, request, tmp_path):
    """A deploy under load whose old workers drain, held up by a long task: its process, and what ran before.

    One host after another: the second is not touched before the first has drained.
    """
    name = request.node.name
    hook = tmp_path / "hook.yml"
    hook.write_text(HOOK)
    before = {host: host.current() for host in hosts}
    loads = [Load(host, f"interrupted_{name}") for host in hosts]
    for host in hosts:
        host.ask(f"rm -f /var/lib/petct/ready /var/lib/petct/go {HOLD} {HOLD}.began")
    source = variants.make(f"interrupted_{name}", {"petct/__init__.py": f"INTERRUPTED = '{name}'\n"})
    more = {**settings, "celery_app_hooks": {"after_release": str(hook)}, "celery_app_drain_wait": 600}
    deploy = start("deploy", celery_app_source=str(source), **more)
    try:
        wait_until(lambda: all(host.ask("ls /var/lib/petct/ready") for host in hosts), 120, "the release is built")
        hosts[0].send("hold", HOLD)
        wait_until(lambda: hosts[0].ask(f"ls {HOLD}.began"), 20, "the long task runs")
        for host in hosts:
            host.ask("touch /var/lib/petct/go")
        wait_until(lambda: "STOPPING" in hosts[0].worker_states().values(), 120, "the old worker drains")
        yield deploy, before, loads
    finally:
        let_go(hosts)
        deploy.kill()
        deploy.wait()
        for load in loads:
            if load.process.poll() is None:
                load.finish()


@LONG
@pytest.mark.timeout(400)
def test_a_rollback_right_after_ctrl_c_takes_over_and_loses_nothing(draining, hosts, settings):
    deploy, before, loads = draining  # what is killed instead, in CI, too: tests/chaos/faults.py
    os.killpg(deploy.pid, signal.SIGINT)  # as a terminal does
    deploy.wait(60)
    back = start("rollback", output=subprocess.PIPE, **settings)
    wait_until(lambda: work(hosts[0]).get("what") == "rollback", 120, "the rollback works on the host")
    let_go(hosts)  # what runs again is the old generation, and it has to end what it began
    text = back.communicate(timeout=200)[0]
    said = " ".join(text.split())
    assert back.returncode == 0, text[-6000:]
    assert "interrupted in phase workers: its work on this host was ended" in said, text[-6000:]
    assert "BAD_NAME" not in said
    for host, load in zip(hosts, loads, strict=True):
        wait_until(lambda host=host: set(host.worker_states().values()) == {"RUNNING"}, 60, f"one generation on {host}")
        assert host.current() == before[host]
        assert {release_of(host, name) for name in host.worker_states()} == {before[host]}
        books = load.finish()
        assert (books["lost"], books["doubled"], books["without_consumer"]) == ([], [], 0), books


@LONG
@pytest.mark.timeout(400)
def test_work_that_was_left_alone_ends_its_step_and_status_says_so(draining, hosts, settings):
    deploy, _before, _loads = draining
    deploy.send_signal(signal.SIGKILL)
    deploy.wait(60)
    wait_until(lambda: not any(host.lock() for host in hosts), 60, "the leases are free")
    said = " ".join(play("status").text.split())
    assert "The work of an interrupted run goes on: deploy of" in said
    let_go(hosts)
    for host in hosts:
        wait_until(lambda host=host: list(host.worker_states().values()) == ["RUNNING"], 60, f"one on {host}")
    assert "The work of an interrupted run goes on" not in play("status").text
    back = play("rollback", **settings)
    assert back.rc == 0, back.text[-6000:]
    assert "interrupted in phase" not in back.text
