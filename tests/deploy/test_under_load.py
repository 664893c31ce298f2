"""Deploys and a rollback under load: nobody waits for a consumer, and the books balance."""

import time

import pytest
from lab import Load, deployed, play


@pytest.mark.timeout(600)
def test_two_deploys_and_a_rollback_lose_and_double_nothing(hosts, variants, settings):
    first = {host: host.current() for host in hosts}
    loads = [Load(host, "under_load", rate=15, tasks=10_000) for host in hosts]
    wait_for_steady_state = time.monotonic() + 5
    while time.monotonic() < wait_for_steady_state:
        assert all(load.process.poll() is None for load in loads)
        time.sleep(0.2)

    two = deployed(celery_app_source=str(variants.make("v2", {"petct/__init__.py": "VERSION = 2\n"})), **settings)
    second = {host: host.current() for host in hosts}
    deployed(celery_app_source=str(variants.make("v3", {"petct/__init__.py": "VERSION = 3\n"})), **settings)
    back = play("rollback", **settings)
    assert back.rc == 0, back.text[-6000:]

    for host, load in zip(hosts, loads, strict=True):
        books = load.finish()
        print(f"{host}: {books}; deploy {two.seconds:.1f} s, rollback {back.seconds:.1f} s")
        assert books["lost"] == [], books
        assert books["doubled"] == [], books
        assert books["without_consumer"] == 0, books
        assert books["samples"] > 100, books
        assert {first[host], second[host]} <= set(books["releases"]), books
        assert host.current() == second[host]
        assert len(host.workers()) == 1


def test_the_same_content_again_is_no_change(hosts, variants, settings, good):
    run = deployed(celery_app_source=str(variants.folder / "v2"), **settings)
    assert run.changed == {host.name: 0 for host in hosts}
    assert {host: (host.current(), host.workers()) for host in hosts} == good


def test_a_changed_setting_hands_over_like_code_and_back(hosts, variants, settings, good):
    source = str(variants.folder / "v2")
    deployed(celery_app_source=source, celery_app_task_time_limit=200, **settings)
    for host in hosts:
        assert host.current() == good[host][0]
        assert host.workers().keys() != good[host][1].keys()
    deployed(celery_app_source=source, **settings)


def test_a_web_setting_leaves_the_workers_alone(hosts, variants, settings):
    before = {host: host.workers() for host in hosts}
    run = deployed(
        celery_app_source=str(variants.folder / "v2"), celery_web_command="gunicorn petct.wsgi --workers 1", **settings
    )
    assert {host: host.workers() for host in hosts} == before
    assert all(count > 0 for count in run.changed.values())
