"""A host that reboots in the middle of a deploy runs the generation proven last of each program, and no other."""

import subprocess
from contextlib import suppress

import pytest
from lab import APP, ROOT, command_of, deployed
from support.wait import wait_until

pytestmark = pytest.mark.timeout(600)

SLOW = {"petct/celery.py": '\nimport sys, time\nif "worker" in sys.argv:\n    time.sleep(60)\n'}
"""A release whose workers take a minute until they consume: time to reboot before they are proven."""
HOLD = "/var/lib/petct/reboot-let-go"
"""The file that ends the task which keeps the old worker draining."""


@pytest.fixture
def one(hosts):
    return hosts[0]


def worker_states(host):
    lines = host.run("supervisorctl status").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if line.startswith(f"{APP}-worker-")}


def consumers(host):
    with suppress(ValueError, KeyError):  # RabbitMQ is still starting
        return host.consumers()


def start_deploy(source, settings):
    words = command_of("deploy", celery_app_source=str(source), **settings)
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)


def reboot(host, deploy):
    """Reboot the host; the deploy's control node is gone as well."""
    deploy.kill()
    deploy.wait()
    subprocess.run(["docker", "restart", "--time", "3", host.name], check=True, capture_output=True)


def family(name):
    return name.rpartition("-")[0]


def runs_one_of_each(host, before, worker):
    """One generation of each program runs, this one of the workers, and nothing else is loaded; it consumes."""
    families = sorted(map(family, before))
    wait_until(lambda: sorted(map(family, host.programs())) == families, 90, f"{families} run")
    assert len(host.run("supervisorctl status").splitlines()) == len(families)
    assert set(host.workers()) == {worker}
    wait_until(lambda: consumers(host) == 1, 90, "the worker consumes, once")


def restored(one, variants, settings):
    """The next deploy, of what ran before, finds nothing that it stumbles over."""
    deployed(celery_app_source=str(variants.make("v1")), **settings)
    assert one.run("find /etc/supervisor/conf.d -type l -o -name '.petct-*'") == ""
    assert len(one.workers()) == 1


def test_before_the_new_workers_are_proven(one, variants, settings, good):
    before = one.programs()
    deploy = start_deploy(variants.make("slow", SLOW), settings)
    wait_until(lambda: len(worker_states(one)) == 2, 150, "the new worker starts beside the old")
    reboot(one, deploy)
    [old] = good[one][1]
    runs_one_of_each(one, before, old)
    restored(one, variants, settings)


def test_while_the_old_workers_drain(one, variants, settings, good):
    before = one.programs()
    one.run(f"rm -f {HOLD}")
    one.send("ledger.hold", "reboot", 1, HOLD)
    deploy = start_deploy(variants.make("v2", {"petct/__init__.py": "VERSION = 2\n"}), settings)
    wait_until(lambda: "STOPPING" in worker_states(one).values(), 150, "the old worker drains")
    [new] = [name for name, state in worker_states(one).items() if state != "STOPPING"]
    reboot(one, deploy)
    runs_one_of_each(one, before, new)
    one.run(f"touch {HOLD}")  # the task runs again by now
    restored(one, variants, settings)
