"""Paths, names, modes and times: one file, and the values that hosts already have."""

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    CONCURRENCY,
    CONF_D,
    DIRECTORY,
    FILE,
    HOUSEKEEPING_QUEUES,
    KEEP_RELEASES,
    LEASE_TIMEOUT,
    OWN_DIRECTORY,
    OWN_FILE,
    READY_TIMEOUT,
    RUN_FILE,
    SECRET_DIRECTORY,
    SECRET_FILE,
    TIME_LIMIT,
    Layout,
    Release,
    consumer_timeout,
    program_of,
    soft_limit,
    stop_timeout,
    supervisor_stop_timeout,
)
from celery_ops import layout as of_the_runtime

ROOT = Path(__file__).resolve().parents[3]
SHOP = Layout("shop")


def defaults() -> dict:
    """The defaults of all roles."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/defaults/main*/*.yml")) + sorted(ROOT.glob("roles/*/defaults/main.yml")):
        found |= yaml.safe_load(path.read_text()) or {}
    return found


def test_the_runtime_has_the_very_same_file():
    path = ROOT / "runtime/celery_ops/layout.py"
    assert path.is_symlink() and path.resolve() == ROOT / "plugins/module_utils/layout.py"
    assert of_the_runtime.Layout("shop").base == SHOP.base


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (SHOP.release("1f2e3d4c5b6a").path, "/srv/shop/releases/1f2e3d4c5b6a"),
        (SHOP.release("1f2e3d4c5b6a").state_file, "/srv/shop/releases/1f2e3d4c5b6a/release.json"),
        (SHOP.current, "/srv/shop/current"),
        (SHOP.virtualenvs, "/srv/shop/venvs"),
        (SHOP.listeners, "/srv/shop/listeners"),
        (SHOP.shared, "/srv/shop/shared"),
        (SHOP.deployments, "/srv/shop/deployments"),
        (SHOP.environment_link, "/etc/shop/env"),
        (SHOP.environment_file("0123456789ab"), "/etc/shop/env-0123456789ab"),
        (SHOP.pidfile("shop-worker-a-1a2b3c4d"), "/run/shop/shop-worker-a-1a2b3c4d.pid"),
        (SHOP.pidfile("scheduler"), "/run/shop/scheduler.pid"),
        (SHOP.heartbeat("shop-worker-a-1a2b3c4d"), "/run/shop/shop-worker-a-1a2b3c4d.heartbeat"),
        (SHOP.canary("shop-worker-a-1a2b3c4d"), "/run/shop/shop-worker-a-1a2b3c4d.canary"),
        (SHOP.socket("127.0.0.1:8000"), "/run/shop/web-127.0.0.1_8000.sock"),
        (SHOP.log_file("shop-web-1a2b3c4d"), "/var/log/shop/shop-web-1a2b3c4d.log"),
        (SHOP.audit_log, "/var/log/shop/deploys.log"),
        (SHOP.state, "/var/lib/shop"),
        (SHOP.ledger, "/var/lib/shop/ledger"),
        (SHOP.revoked, "/var/lib/shop/revoked"),
        (SHOP.beat_schedule("3.11"), "/var/lib/shop/beat-schedule-py3.11"),
        (SHOP.deploy_lock, "/run/celery-ops/shop/deploy.lock"),
        (SHOP.volatile_conf_dir, "/run/celery-ops/shop/conf.d"),
        (SHOP.tmpfiles, "/etc/tmpfiles.d/shop.conf"),
        (SHOP.conf("shop-web-1a2b3c4d"), "/etc/supervisor/conf.d/shop-web-1a2b3c4d.conf"),
        (CONF_D, "/etc/supervisor/conf.d"),
    ],
)
def test_paths_on_hosts_stay(path, expected):
    assert str(path) == expected


def test_the_source_of_a_release(tmp_path):
    assert Release(tmp_path).source == tmp_path / "app"
    (tmp_path / "source").mkdir()
    assert Release(tmp_path).source == tmp_path / "source"
    assert Release(tmp_path).app == tmp_path / "app"


def test_the_commands_of_a_release_on_its_host(tmp_path):
    release = Release(tmp_path)
    assert release.command_here("celery-ops-soak") == tmp_path / "venv/bin/celery-ops-ledger"  # as 0.1 built it
    (tmp_path / "bin").mkdir()
    assert (
        release.command_here("celery-ops-soak")
        == release.command("celery-ops-soak")
        == tmp_path / "bin/celery-ops-soak"
    )


def test_names_of_programs():
    assert [SHOP.worker("default"), SHOP.scheduler, SHOP.web, SHOP.web_listener] == [
        "shop-worker-default", "shop-scheduler", "shop-web", "shop-web-listener",
    ]  # fmt: skip
    assert program_of("shop-worker-a-b-1a2b3c4d") == "shop-worker-a-b"
    assert program_of("shop-worker-a") == "shop-worker-a"


@pytest.mark.parametrize("end", [".pid", ".pid.lock", ".heartbeat", ".canary"])
def test_what_a_generation_has_in_the_run_directory(end):
    assert RUN_FILE.fullmatch(f"shop-worker-a-1a2b3c4d{end}")[1] == "shop-worker-a-1a2b3c4d"
    assert not RUN_FILE.fullmatch(f"scheduler{end}")


@pytest.mark.parametrize(("limit", "soft", "stop"), [(300, 270, 330), (2, 1, 32), (10, 9, 40), (3600, 3570, 3630)])
def test_derived_times(limit, soft, stop):
    assert (soft_limit(limit), stop_timeout(limit)) == (soft, stop)


def test_times_that_all_applications_of_a_host_share():
    assert [supervisor_stop_timeout(limit) for limit in (300, 3600)] == [3600, 14520]
    assert [consumer_timeout(limit) for limit in (300, 86400)] == [86400, 172800]
    assert LEASE_TIMEOUT == 45


def test_modes():
    assert (FILE, DIRECTORY, OWN_FILE, OWN_DIRECTORY) == (0o644, 0o755, 0o640, 0o750)
    assert (SECRET_FILE, SECRET_DIRECTORY) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("queue", "is_housekeeping"),
    [
        ("celery@host.celery.pidbox", True),
        ("5f8e.reply.celery.pidbox", True),
        ("celeryev.0a1b", True),
        ("celery_delayed_27", True),
        ("celery-ops.canary.shop-worker-a-1a2b3c4d@host.5f8e", True),
        ("celery-ops.echo.5f8e", True),
        ("amq.gen-5f8e", True),
        ("shop", False),
        ("celery", False),
        ("shop.dead", False),
        ("pidboxes", False),
    ],
)
def test_housekeeping_queues(queue, is_housekeeping):
    assert bool(re.fullmatch(HOUSEKEEPING_QUEUES, queue)) is is_housekeeping


def test_defaults_that_the_roles_show_too():
    roles = defaults()
    assert roles["celery_app_task_time_limit"] == TIME_LIMIT
    assert roles["celery_worker_ready_timeout"] == READY_TIMEOUT
    assert roles["celery_app_keep_releases"] == KEEP_RELEASES
    assert roles["celery_worker_programs"][0]["concurrency"] == CONCURRENCY
