"""A bad release never replaces a good one."""

import pytest
from support.control import play
from support.long import LONG
from support.wait import wait_until

DIES_AFTER_5_S = """
import os, threading
from celery.signals import worker_init
@worker_init.connect
def _die(**_):
    threading.Timer(5, os._exit, (3,)).start()
"""
NEVER_CONSUMES = """
from celery.signals import worker_ready
@worker_ready.connect
def _deaf(sender, **_):
    for queue in list(sender.app.amqp.queues.consume_from):
        sender.task_consumer.cancel_by_queue(queue)
"""
CANARY_FAILS = """
from celery import signals
@signals.task_prerun.connect
def _poison(task, **_):
    if task.name == "celery_ops.canary":
        raise SystemExit("no room for canaries")
"""
# More ways to fail in the build, where nothing that runs is touched: tests/unit/release/test_inspected_build.py.
BAD = {
    "import error": ({"petct/celery.py": "\nfrom petct import nowhere\n"}, {}, "nowhere"),
    "broker address": ({}, {"celery_app_broker_host": "127.0.0.2", "preflight_leave_services": True}, "127.0.0.2"),
    "other broker": ({}, {"celery_app_broker_host": "127.0.0.2"}, "To move them, type"),
    "dies after 5 s": ({"petct/celery.py": DIES_AFTER_5_S}, {}, "did not come up"),
    "never consumes": ({"petct/celery.py": NEVER_CONSUMES}, {}, "consum"),
    "canary fails": ({"petct/celery.py": CANARY_FAILS}, {}, "canary"),
    "migration": (
        {},
        {"celery_app_migrate_command": "python -c 'raise SystemExit(\"no such table\")'"},
        "no such table",
    ),
}

LATER = ("broker address", "dies after 5 s", "never consumes", "canary fails", "migration")
"""Those that CI leaves out: what they have, others have as well."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", [pytest.param(case, marks=LONG) if case in LATER else case for case in BAD])
def test_the_old_one_goes_on(case, hosts, variants, settings, good):
    edits, changes, words = BAD[case]
    source = variants.make(case.replace(" ", "_"), {**edits, "petct/__init__.py": f"# {case}\n"})
    # A worker gets 15 s to become ready here, and the import as long; the default is 60.
    before = hosts[0].releases()
    run = play("deploy", celery_app_source=str(source), **{**settings, "celery_worker_ready_timeout": 15, **changes})

    print(f"{case}: ended after {run.seconds:.1f} s")
    assert run.rc != 0, run.text[-3000:]
    assert words in run.text, run.text[-6000:]
    fresh = {status for release, status in hosts[0].releases().items() if release not in before}
    assert "built" not in fresh or case == "broker address", "that one is not the release's fault"
    for host in hosts:
        assert (host.current(), host.workers()) == good[host], run.text[-3000:]
        # A quorum queue counts its consumers anew every five seconds.
        wait_until(lambda host=host: host.consumers() == 1, 15, f"one consumer on {host}")
        wait_until(lambda host=host: not host.lock(), 10, f"the lock of {host} is free")


# An ordinary error ends gunicorn; this one has it start worker after worker.
NO_WEB = {"petct/wsgi.py": "\nraise SystemExit('no web')\n"}


def assert_all_is_as_before(hosts, good):
    """Every host is on the release and the generations from before, and says so."""
    for host in hosts:
        release, workers = good[host]
        wait_until(lambda host=host, workers=workers: host.workers().keys() == workers.keys(), 20, "the old generation")
        assert host.current() == release
        wait_until(lambda host=host: host.consumers() == 1, 15, f"one consumer on {host}")
        wait_until(lambda host=host: not host.lock(), 10, f"the lock of {host} is free")


@pytest.mark.timeout(300)
def test_a_deploy_whose_web_fails_goes_back_on_every_host_by_itself(hosts, variants, settings, good):
    source = variants.make("web", NO_WEB)
    run = play("deploy", celery_app_source=str(source), **settings)
    assert run.rc != 0, run.text[-3000:]
    assert "the processes it starts keep ending" in run.text, run.text[-3000:]
    assert "- web on celery-ops-deploy-" in run.text, run.text[-3000:]
    assert "Restored to the previous deployment" in run.text, run.text[-3000:]
    assert_all_is_as_before(hosts, good)
    for host in hosts:
        entry = host.last_deploy()
        assert (entry["action"], entry["from"]) == ("deploy", host.current())
        assert entry["outcome"].startswith("failed: web on ")
        assert entry["outcome"].endswith("taken back")
    # Whoever types rollback now, as after a deploy that left its mark, does not mean the one before.
    back = play("rollback", **settings)
    assert back.rc != 0
    assert "failed and was rolled back" in " ".join(back.text.split())
    assert_all_is_as_before(hosts, good)


@LONG
@pytest.mark.timeout(300)
def test_a_deploy_that_fails_can_be_kept_for_a_look_and_is_then_rolled_back(hosts, variants, settings, good):
    source = variants.make("web", NO_WEB)
    run = play("deploy", celery_app_source=str(source), celery_app_on_failure="keep", **settings)
    assert run.rc != 0, run.text[-3000:]
    assert all(host.workers().keys() != good[host][1].keys() for host in hosts)
    status = play("status", **settings)
    assert "failed and was left as it is" in " ".join(status.text.split()), status.text[-3000:]
    assert play("rollback", **settings).rc == 0
    assert_all_is_as_before(hosts, good)


@LONG
@pytest.mark.timeout(300)
def test_a_fault_of_the_host_marks_no_release(hosts, variants, settings, good):
    broken = "/etc/supervisor/conf.d/somebody.conf"
    hosts[0].ask(f"echo '[program:somebody]\ncommand=%(nothing)s' > {broken}")
    try:
        before = hosts[0].releases()
        source = variants.make("innocent", {"petct/__init__.py": "# innocent\n"})
        run = play("deploy", celery_app_source=str(source), **settings)
        assert run.rc != 0, run.text[-3000:]
        assert "somebody" in run.text, run.text[-3000:]
    finally:
        hosts[0].ask(f"rm {broken}")
    assert set(hosts[0].releases().values()) <= {"good", "built", "failed"}
    fresh = [status for release, status in hosts[0].releases().items() if release not in before]
    assert fresh == ["built"], "it was not marked as failed"
    assert_all_is_as_before(hosts, good)


def test_the_first_host_fails_alone(hosts, variants, settings, good):
    dies = "\nimport os, sys\nif 'worker' in sys.argv:\n    os._exit(9)\n"
    source = variants.make("alone", {"petct/celery.py": dies})
    run = play("deploy", celery_app_source=str(source), **settings)
    assert run.rc != 0, run.text[-3000:]
    # The second host was never asked to change its workers: nothing failed there, nothing had to be taken back.
    assert run.failed == {hosts[0].name: 1, hosts[1].name: 0}
    assert {host: (host.current(), host.workers()) for host in hosts} == good
