"""Whatever becomes of the control node: the work on a host ends by itself, or the next run takes over, soundly."""

import json
import os
import signal
import subprocess

import pytest
from lab import APP, LOCK, ROOT, Load, command_of, play
from support.wait import wait_until

HOLD = "/var/lib/petct/let-go"
"""The file that ends the long task, and so the drain."""


def let_go(hosts):
    """End the long task."""
    for host in hosts:
        host.run(f"touch {HOLD}")


def work(host):
    """The process that works on the host, as it says itself."""
    text = host.run(f"flock -n -s /run/celery-ops/{APP}/work true || cat /run/celery-ops/{APP}/work")
    return json.loads(text) if text else {}


def lease(host):
    return host.run(f"cat {LOCK}")


def states(host):
    """Supervisor's word for every worker program."""
    lines = host.run("supervisorctl status").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if line.startswith("petct-worker-")}


def release_of(host, program):
    return host.run(f"grep -o 'releases/[0-9a-f]*' /etc/supervisor/conf.d/{program}.conf | head -n 1").split("/")[-1]


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
    hook, began = tmp_path / "hook.yml", f"/srv/petct/shared/ledger/long_{name}"
    hook.write_text(HOOK)
    before = {host: host.current() for host in hosts}
    loads = [Load(host, f"interrupted_{name}", rate=10, tasks=10_000) for host in hosts]
    for host in hosts:
        host.run(f"rm -f /var/lib/petct/ready /var/lib/petct/go {HOLD} {began}")
    source = variants.make(f"interrupted_{name}", {"petct/__init__.py": f"INTERRUPTED = '{name}'\n"})
    more = {**settings, "celery_app_hooks": {"after_release": str(hook)}, "celery_app_drain_wait": 600}
    deploy = subprocess.Popen(
        command_of("deploy", celery_app_source=str(source), **more),
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: all(host.run("ls /var/lib/petct/ready") for host in hosts), 120, "the release is built")
        hosts[0].send("ledger.hold", f"long_{name}", 1, HOLD)
        wait_until(lambda: hosts[0].run(f"cat {began}"), 20, "the long task runs")
        for host in hosts:
            host.run("touch /var/lib/petct/go")
        wait_until(lambda: "STOPPING" in states(hosts[0]).values(), 120, "the old worker drains")
        yield deploy, before, loads
    finally:
        let_go(hosts)
        deploy.kill()
        deploy.wait()
        for load in loads:
            if load.process.poll() is None:
                load.finish()


@pytest.mark.timeout(400)
def test_a_rollback_right_after_ctrl_c_takes_over_and_loses_nothing(draining, hosts, settings):
    deploy, before, loads = draining  # what is killed instead: tests/chaos/faults.py
    os.killpg(deploy.pid, signal.SIGINT)  # as a terminal does
    deploy.wait(60)
    back = subprocess.Popen(
        command_of("rollback", **settings), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_until(lambda: work(hosts[0]).get("what") == "rollback", 120, "the rollback works on the host")
    let_go(hosts)  # what runs again is the old generation, and it has to end what it began
    text = back.communicate(timeout=200)[0]
    said = " ".join(text.split())
    assert back.returncode == 0, text[-6000:]
    assert "interrupted in phase workers: its work on this host was ended" in said, text[-6000:]
    assert "BAD_NAME" not in said
    for host, load in zip(hosts, loads, strict=True):
        wait_until(lambda host=host: set(states(host).values()) == {"RUNNING"}, 60, f"one generation on {host}")
        assert host.current() == before[host]
        assert {release_of(host, name) for name in states(host)} == {before[host]}
        books = load.finish()
        assert (books["lost"], books["doubled"], books["without_consumer"]) == ([], [], 0), books


@pytest.mark.timeout(400)
def test_work_that_was_left_alone_ends_its_step_and_status_says_so(draining, hosts, settings):
    deploy, _before, _loads = draining
    deploy.send_signal(signal.SIGKILL)
    deploy.wait(60)
    wait_until(lambda: not any(lease(host) for host in hosts), 60, "the leases are free")
    said = " ".join(play("status").text.split())
    assert "The work of an interrupted run goes on: deploy of" in said
    let_go(hosts)
    for host in hosts:
        wait_until(lambda host=host: list(states(host).values()) == ["RUNNING"], 60, f"the drain is over on {host}")
    assert "The work of an interrupted run goes on" not in play("status").text
    back = play("rollback", **settings)
    assert back.rc == 0, back.text[-6000:]
    assert "interrupted in phase" not in back.text
