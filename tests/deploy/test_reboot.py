"""A host that reboots in the middle of a deploy runs the generation proven last of each program, and no other."""

import pytest
from support.control import deployed, start
from support.long import LONG
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)

SLOW = {"petct/celery.py": '\nimport sys, time\nif "worker" in sys.argv:\n    time.sleep(60)\n'}
"""A release whose workers take a minute until they consume: time to reboot before they are proven."""
HOLD = "/var/lib/petct/reboot-let-go"
"""The file that ends the task which keeps the old worker draining."""


@pytest.fixture
def one(hosts):
    return hosts[0]


def reboot(host, deploy):
    """Reboot the host; the deploy's control node is gone as well."""
    deploy.kill()
    deploy.wait()
    host.restart(seconds=3)


def kinds(names):
    return sorted(name.rpartition("-")[0] for name in names)


def runs_one_of_each(host, before, worker):
    """One generation of each program runs, this one of the workers, and nothing else is loaded; it consumes."""
    expected = kinds(before)
    wait_until(lambda: kinds(host.running()) == expected, 90, f"{expected} run")
    assert len(host.programs()) == len(expected)
    assert set(host.workers()) == {worker}
    wait_until(lambda: host.consumers() == 1, 90, "the worker consumes, once")


def restored(one, variants, settings):
    """The next deploy, of what ran before, finds nothing that it stumbles over."""
    deployed(celery_app_source=str(variants.make("v1")), **settings)
    assert one.output("find /etc/supervisor/conf.d -type l -o -name '.petct-*'") == ""
    assert len(one.workers()) == 1


@LONG
def test_before_the_new_workers_are_proven(one, variants, settings, good):
    before = one.running()
    deploy = start("deploy", celery_app_source=str(variants.make("slow", SLOW)), **settings)
    wait_until(lambda: len(one.worker_states()) == 2, 150, "the new worker starts beside the old")
    reboot(one, deploy)
    [old] = good[one][1]
    runs_one_of_each(one, before, old)
    restored(one, variants, settings)


@LONG
def test_while_the_old_workers_drain(one, variants, settings, good):
    before = one.running()
    one.ask(f"rm -f {HOLD} {HOLD}.began")
    one.send("hold", HOLD)
    deploy = start(
        "deploy", celery_app_source=str(variants.make("v2", {"petct/__init__.py": "VERSION = 2\n"})), **settings
    )
    wait_until(lambda: "STOPPING" in one.worker_states().values(), 150, "the old worker drains")
    [new] = [name for name, state in one.worker_states().items() if state != "STOPPING"]
    reboot(one, deploy)
    runs_one_of_each(one, before, new)
    one.ask(f"touch {HOLD}")  # the task runs again by now
    restored(one, variants, settings)
