"""One deploy at a time, and a lock that nobody has to clean up."""

import json
import signal
import subprocess
import time

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import run_id
from support.control import deployed, play, start
from support.host import APP
from support.long import LONG
from support.wait import wait_until

LOCK = f"/run/celery-ops/{APP}/deploy.lock"
pytestmark = pytest.mark.timeout(600)
ENDS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])


@pytest.fixture
def under_way(hosts, variants, settings, tmp_path):
    """A deploy that holds the lock and is waiting in a hook."""
    hook = tmp_path / "hook.yml"
    hook.write_text(
        "- name: Begin\n  ansible.builtin.file: {path: /var/lib/petct/waiting, state: touch, mode: '0644'}\n"
        "- name: Wait\n  ansible.builtin.wait_for: {path: /var/lib/petct/go, timeout: 240}\n"
    )
    for host in hosts:
        host.ask("rm -f /var/lib/petct/go /var/lib/petct/waiting")
    process = start(
        "deploy",
        celery_app_source=str(variants.make("v1")),
        celery_app_hooks={"after_release": str(hook)},
        **settings,
    )
    wait_until(
        lambda: all(host.run("test -e /var/lib/petct/waiting").rc == 0 for host in hosts), 240, "both hooks waiting"
    )
    assert all(host.lock() for host in hosts)
    yield process
    process.kill()
    process.wait()
    wait_until(lambda: not any(host.lock() for host in hosts), 60, "both locks free")


def test_a_second_deploy_says_who_holds_it_and_ends_at_once(under_way, hosts, variants, settings):
    second = play("deploy", celery_app_source=str(variants.make("v1")), **settings)
    assert second.rc != 0
    assert f"locked by {hosts[0].lock()['who']} for deploy since" in " ".join(second.text.split())
    assert under_way.poll() is None, "it did not wait for the first"


@LONG
def test_a_second_deploy_may_wait(under_way, hosts, variants, settings):
    source = str(variants.make("v1"))
    second = start("deploy", output=subprocess.PIPE, celery_app_source=source, celery_app_lock_wait=240, **settings)
    first = {host: host.lock()["id"] for host in hosts}
    for host in hosts:
        host.ask("touch /var/lib/petct/go")
    assert under_way.wait(240) == 0
    said = second.communicate(timeout=240)[0]
    assert second.returncode == 0, said[-3000:]
    assert all(host.lock().get("id") != first[host] for host in hosts)


@ENDS
def test_it_is_free_again_however_the_deploy_ends(under_way, hosts, number):
    under_way.send_signal(number)
    wait_until(lambda: not any(host.lock() for host in hosts), 60, "both locks free")


@LONG
@ENDS
def test_it_is_free_again_when_the_deploy_ends_in_the_moment_in_which_it_is_taken(hosts, variants, settings, number):
    process = start("deploy", celery_app_source=str(variants.make("v1")), **settings)
    wait_until(lambda: any(host.lock() for host in hosts), 120, "a lock that was taken")
    process.send_signal(number)
    process.wait(60)
    wait_until(lambda: not any(host.lock() for host in hosts), 40, "free locks, before they are stale")


@LONG
def test_a_run_that_ended_a_moment_ago_stops_nobody(hosts, variants, settings):
    over = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # there until its input ends
    lock = {"id": run_id(over.pid), "who": "me", "what": "deploy", "at": "just now", "renewed": time.time()}
    over.communicate()
    for host in hosts:
        # As its keeper does, a little later than usual.
        host.ask(f"echo '{json.dumps(lock)}' > {LOCK}; (sleep 5; rm {LOCK}) >/dev/null 2>&1 &")
    deployed(celery_app_source=str(variants.make("v1")), **settings)


def test_a_lock_can_be_taken_away_and_that_is_noted(under_way, hosts):
    assert play("unlock").rc == 0
    assert not any(host.lock() for host in hosts)
    assert hosts[0].last_deploy()["action"] == "unlock"
