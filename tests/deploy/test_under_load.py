"""Deploys and a rollback under load: no task waits for a consumer, none is lost or doubled."""

import json
import threading

import pytest
import yaml
from support.control import ROOT, deployed, play
from support.load import Load, Visitor
from support.long import LONG
from support.wait import wait_until

V2 = {"petct/__init__.py": "VERSION = 2\n"}
VARIABLES = yaml.safe_load((ROOT / "molecule/shared/group_vars/all/20-test.yml").read_text())
PHASES = ("release", "workers", "scheduler", "web", "activate")


@pytest.fixture(scope="module")
def hooks(hosts, tmp_path_factory):
    """A task file for before and after every phase, which notes that it ran."""
    directory, files = tmp_path_factory.mktemp("hooks"), {}
    for hook in [f"{when}_{phase}" for phase in PHASES for when in ("before", "after")]:
        path = directory / f"{hook}.yml"
        path.write_text(f"- name: Note\n  ansible.builtin.shell: echo {hook} >> /var/lib/petct/hooks\n")
        files[hook] = str(path)
    for host in hosts:
        host.ask("rm -f /var/lib/petct/hooks")
    return files


@pytest.mark.timeout(600)
def test_two_deploys_and_a_rollback_lose_and_double_nothing(hosts, variants, settings, hooks):
    first = {host: host.current() for host in hosts}
    visitors = [Visitor(host) for host in hosts]
    loads = [Load(host, "under_load") for host in hosts]
    for load in loads:
        wait_until(lambda load=load: len(load.executions()) > 75, 60, "a steady load")
    for visitor in visitors:
        visitor.start()

    for host in hosts:  # keeps the old worker draining for some ten seconds
        host.send("celery_ops.ledger", "long", 1, 25.0)
    source = str(variants.make("v2", V2))
    two = deployed(celery_app_source=source, celery_app_hooks=hooks, **settings)
    second = {host: host.current() for host in hosts}
    confs = {host: host.confs() for host in hosts}
    # A change of settings alone is another deployment of the same release.
    changed = {
        "celery_app_source": source,
        "celery_app_environment": {**VARIABLES["celery_app_environment"], "FACTOR": "0"},
        **settings,
    }
    deployed(**changed)
    assert all(host.confs() != confs[host] for host in hosts)
    back = play("rollback", **changed)
    assert back.rc == 0, back.text[-6000:]

    for host, load in zip(hosts, loads, strict=True):
        books = load.finish()
        print(f"{host}: {books}; deploy {two.seconds:.1f} s, rollback {back.seconds:.1f} s")
        assert books["lost"] == [], books
        assert books["doubled"] == [], books
        assert books["without_consumer"] == 0, books
        assert books["samples"] > 100, books
        assert books["wait_max"] < 5, "a worker that drains held on to a task that it did not begin"
        assert {first[host], second[host]} <= set(books["releases"]), books
        assert host.current() == second[host]
        assert host.releases()[host.current()] == "good"
        assert "FACTOR" not in host.output("cat /etc/petct/env")
        # It works long before Supervisor, after its startsecs, calls it RUNNING.
        wait_until(lambda host=host: len(host.workers()) == 1, 20, f"one worker program on {host}")
        assert host.confs() == confs[host], "byte for byte what ran"
    for visitor in visitors:
        assert visitor.finish() == []
        assert visitor.asked > 50


def test_hooks_ran_before_and_after_every_phase(hosts, hooks):
    for host in hosts:
        assert host.ask("cat /var/lib/petct/hooks").split() == list(hooks)


def test_the_audit_log_says_who_did_what_and_how_long_it_took(hosts):
    for host in hosts:
        entry = host.last_deploy()
        assert (entry["action"], entry["outcome"], entry["to"]) == ("rollback", "good", host.current())
        assert "@" in entry["who"]
        assert set(entry["seconds"]) == {"producers", "workers"}
        deploy = json.loads(host.output("tail -n 2 /var/log/petct/deploys.log | head -n 1"))
        assert set(deploy["seconds"]) == {"release", "workers", "scheduler", "web"}
        assert all(seconds > 0 for seconds in deploy["seconds"].values())


@LONG
def test_the_same_content_again_is_no_change(hosts, variants, settings, good):
    run = deployed(celery_app_source=str(variants.make("v2", V2)), **settings)
    assert run.changed == {host.name: 0 for host in hosts}
    assert {host: (host.current(), host.workers()) for host in hosts} == good


@LONG
def test_a_changed_setting_hands_over_like_code_and_back(hosts, variants, settings, good):
    source = str(variants.make("v2", V2))
    most = {}
    over = threading.Event()

    def count(host):
        while not over.wait(0.3):
            most[host] = max(most.get(host, 0), len(host.worker_states()))

    counters = [threading.Thread(target=count, args=(host,)) for host in hosts]
    for counter in counters:
        counter.start()
    changes = {"celery_app_task_time_limit": 200, "celery_worker_handover": "rolling"}
    try:
        deployed(celery_app_source=source, **changes, **settings)
    finally:
        over.set()
        for counter in counters:
            counter.join()
    for host in hosts:
        assert most[host] == 2, "old and new side by side, and no more"
        assert host.current() == good[host][0]
        assert host.workers().keys() != good[host][1].keys()
    deployed(celery_app_source=source, **settings)


@LONG
def test_a_web_setting_leaves_the_workers_alone(hosts, variants, settings):
    before = {host: host.workers() for host in hosts}
    run = deployed(
        celery_app_source=str(variants.make("v2", V2)), celery_web_command="gunicorn petct.wsgi --workers 1", **settings
    )
    assert {host: host.workers() for host in hosts} == before
    assert all(count > 0 for count in run.changed.values())


@LONG
@pytest.mark.timeout(300)
def test_a_rollback_to_a_named_release_and_what_a_prune_keeps(hosts, variants, settings):
    two = {host: host.current() for host in hosts}
    good = [{name for name, status in host.releases().items() if status == "good"} for host in hosts]
    one = min(set.intersection(*good) - set(two.values()))
    back = play("rollback", celery_app_release=one, **settings)
    assert back.rc == 0, back.text[-6000:]
    for host in hosts:
        assert host.current() == one
        assert host.releases()[two[host]] == "good", "nothing is wrong with a release that was rolled back"

    deployed(celery_app_source=str(variants.make("v2", V2)), celery_app_keep_releases=1, **settings)
    for host in hosts:
        assert host.current() == two[host]
        good = [name for name, status in host.releases().items() if status == "good"]
        assert good == [two[host]], "one good one is kept"
