"""The passwords of broker and result store are rotated under load, and a rollback logs in with today's."""

import shutil
from pathlib import Path

import pytest
from support.control import EPHEMERAL, deployed, play
from support.load import Load
from support.long import LONG
from support.wait import wait_until

ENVIRONMENT = "cat /etc/petct/env"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A copy of the control node's secrets, so that other tests find theirs as they were."""
    directory = tmp_path_factory.mktemp("secrets") / "secrets"
    shutil.copytree(EPHEMERAL / "secrets", directory)
    return directory


@pytest.fixture(scope="module")
def rotated(hosts, directory, settings):
    """A system whose passwords are rotated under load: the last tests of the scenario."""
    loads = [Load(host, "rotated", rate=15) for host in hosts]
    for host, load in zip(hosts, loads, strict=True):
        wait_until(lambda load=load: len(load.executions()) > 45, 60, "a steady load")
        host.send("celery_ops.ledger", "long", 1, 25.0)  # keeps the old worker draining, with the old password
    before = passwords(directory)
    run = play("rotate_secrets", celery_app_secrets_dir=str(directory), **settings)
    return run, before, loads


def passwords(directory: Path) -> dict[str, str]:
    return {name: (directory / f"petct_{name}_password").read_text().strip() for name in ("broker", "result_store")}


@pytest.mark.timeout(600)
def test_under_load_nothing_is_lost(rotated, hosts, directory):
    run, before, loads = rotated
    assert run.rc == 0, run.text[-6000:]
    for host, load in zip(hosts, loads, strict=True):
        books = load.finish()
        print(f"{host}: {books}; rotation {run.seconds:.1f} s")
        # The load itself logs in as the old user until that is removed.
        assert (books["lost"], books["doubled"]) == ([], []), books
        assert books["confirmed"] > 300, books
    now = passwords(directory)
    assert all(now[name] != before[name] for name in now)
    assert [path.name for path in directory.iterdir() if path.name.endswith(".old")] == []
    shown = [name for name, value in [*before.items(), *now.items()] if value in run.text]
    assert shown == []


def test_the_old_ones_are_refused(rotated, hosts, directory):
    _, before, _ = rotated
    for host in hosts:
        users = host.output("rabbitmqctl -q list_users").split()
        assert "petct-2" in users
        assert "petct" not in users
        assert host.ask("grep -c '^user petct ' /etc/redis/celery-ops.acl").strip() == "1"
        [rules] = host.ask("grep '^user petct ' /etc/redis/celery-ops.acl").splitlines()
        assert rules.count("#") == 1
        environment = host.ask(ENVIRONMENT)
        assert all(value not in environment for value in before.values())
        assert all(value in environment for value in passwords(directory).values())


def test_once_more_changes_users_back_and_a_run_of_site_changes_nothing(rotated, hosts, directory, settings):
    same = play("site", celery_app_secrets_dir=str(directory), options=["--tags", "rabbitmq,result_store"], **settings)
    assert same.rc == 0, same.text[-3000:]
    assert sum(same.changed.values()) == 0, same.text[-3000:]


@LONG
@pytest.mark.timeout(600)
def test_a_rollback_to_before_the_rotation_logs_in_with_todays(rotated, hosts, directory, settings):
    _, before, _ = rotated
    back = play("rollback", celery_app_secrets_dir=str(directory), **settings)
    assert back.rc == 0, back.text[-6000:]
    for host in hosts:
        wait_until(lambda host=host: host.consumers() == 1, 30, "one worker that consumes")
        environment = host.ask(ENVIRONMENT)
        assert all(value not in environment for value in before.values())
    check = play("check", celery_app_secrets_dir=str(directory), **settings)
    assert check.rc == 0, check.text[-3000:]
    deployed(celery_app_secrets_dir=str(directory), **settings)


@LONG
@pytest.mark.timeout(600)
def test_interrupted_it_says_so_and_the_next_run_completes_it(rotated, hosts, directory, settings, tmp_path):
    stop = tmp_path / "stop.yml"
    stop.write_text("- name: Stop\n  ansible.builtin.fail: {msg: stop here}\n")
    options = {"celery_app_secrets_dir": str(directory), **settings}
    begun = play("rotate_secrets", celery_app_hooks={"before_workers": str(stop)}, **options)
    assert begun.rc != 0
    half_way = passwords(directory)
    status = play("status", **options)
    assert "rotate_secrets" in status.words, status.text[-3000:]
    again = play("rotate_secrets", **options)
    assert again.rc == 0, again.text[-6000:]
    assert passwords(directory) == half_way, "no second rotation was begun"
    for host in hosts:
        users = host.output("rabbitmqctl -q list_users").split()
        assert "petct" in users
        assert "petct-2" not in users
    assert "A rotation of passwords" not in play("status", **options).words
