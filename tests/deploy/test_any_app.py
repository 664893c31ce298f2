"""Other people's applications, on a host that has one already: plain Celery from git, and Flask."""

import json
import subprocess

import pytest
from lab import ROOT, play, until

# What the scenario's inventory says for the reference application does not hold for these.
BARE = {
    "celery_app_environment": {},
    "celery_app_secrets": {},
    "celery_app_migrate_command": "",
    "celery_app_seed_command": "",
    "celery_app_prove_command": "",
    "celery_app_prove_url": "",
    "celery_scheduler_enabled": False,
    "celery_web_command": "",
}


@pytest.fixture
def repository(tmp_path):
    """The shop as a bare git repository with a tag."""
    bare, tree = tmp_path / "shop.git", ROOT / "tests/apps/shop"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q", "--bare", str(bare)], check=True)
    at = [*git, "--git-dir", str(bare), "--work-tree", str(tree)]
    subprocess.run([*at, "add", "-A"], check=True)
    subprocess.run([*at, "commit", "-qm", "one"], check=True)
    subprocess.run([*at, "tag", "v1"], check=True)
    return f"file://{bare}"


def shops(host):
    """The shop's programs that run, without their generation."""
    return [name[:-9] for name in host.programs() if name.startswith("shop-")]


def call(host, app, task, *arguments):
    """Send a task as an operator does and return its result."""
    task_id = host.run(f"{app} celery call {task} --args='{json.dumps(arguments)}'").splitlines()[-1]
    return host.run(f"timeout 20 {app} celery result {task_id}")


@pytest.mark.timeout(400)
def test_plain_celery_from_git_with_three_pools(hosts, good, repository):
    host = hosts[0]
    programs = [
        {"name": "default", "queues": ["shop"], "concurrency": 2},
        {"name": "mail", "queues": ["mail", "bulk"], "concurrency": 4, "pool": "threads"},
        {"name": "net", "queues": ["net"], "concurrency": 20, "pool": "gevent"},
    ]
    shop = {
        **BARE, "celery_app_name": "shop", "celery_app_source": repository, "celery_app_version": "v1",
        "celery_app_requirements": "pyproject.toml", "celery_worker_programs": programs,
        "celery_app_result_store_database": 2,
    }  # fmt: skip
    run = play("site", host.name, **shop)
    assert run.rc == 0, run.text[-6000:]
    expected = ["shop-health", "shop-worker-default", "shop-worker-mail", "shop-worker-net"]
    until(lambda: sorted(shops(host)) == expected, 30, f"{expected} RUNNING")
    assert "'sum': 5" in call(host, "shop", "shop.add", 2, 3)

    again = play("site", host.name, **shop)
    assert (again.rc, again.changed) == (0, {host.name: 0}), again.text[-6000:]

    before = host.programs()
    programs[1]["concurrency"] = 5
    assert play("deploy", host.name, **shop).rc == 0
    after = host.programs()
    changed = {name[:-9] for name in before.keys() ^ after.keys()}
    assert changed == {"shop-worker-mail"}
    until(lambda: sorted(shops(host)) == expected, 30, f"{expected} RUNNING")
    assert (host.current(), host.workers()) == good[host]


@pytest.mark.timeout(400)
def test_flask_with_its_own_celery_settings_side_by_side(hosts, good):
    host = hosts[0]
    notes = {
        **BARE, "celery_app_name": "notes", "celery_app_source": str(ROOT / "tests/apps/notes"),
        "celery_worker_programs": [{"name": "default", "queues": ["notes"], "concurrency": 2}],
        "celery_scheduler_enabled": True, "celery_app_result_store_database": 3,
        "celery_web_command": "gunicorn notes:web --no-control-socket", "celery_web_bind": "127.0.0.1:8001",
        "celery_app_prove_url": "/shout/hello",
    }  # fmt: skip
    run = play("site", host.name, **notes)
    assert run.rc == 0, run.text[-6000:]
    fetch = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8001/shout/hello').read())\""
    assert "HELLO" in host.run(fetch)
    assert (host.current(), host.workers()) == good[host]
    # Supervisor calls a worker RUNNING ten seconds after its start.
    until(lambda: all(" RUNNING " in line for line in host.run("supervisorctl status").splitlines()), 30, "all RUNNING")
