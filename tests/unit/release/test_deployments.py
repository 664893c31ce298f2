"""Deployment records: what a rollback goes back to, and the audit log of what was tried."""

import json
from dataclasses import asdict

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import (
    Deployments,
    differences,
    has_lone_scheduler,
    identity,
    is_renewal,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import ADOPTED
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation


@pytest.fixture
def deployments(tmp_path):
    (tmp_path / "srv").mkdir()
    found = Deployments("shop", tmp_path / "srv")
    found.audit = tmp_path / "log/deploys.log"
    return found


def program(name, conf="[program:x]\n"):
    return {"family": name[:-9], "name": name, "conf": conf}


def record(name, previous="", programs=("shop-worker-a-00000001",), **changes):
    base = {"id": name, "previous": previous, "release": "r1", "environment": "env-1", "at": name, "live_at": 1.0}
    return {**base, "programs": [program(one) for one in programs], **changes}


def audit(deployments):
    return [json.loads(line) for line in deployments.audit.read_text().splitlines()]


def test_a_record_is_read_back_byte_for_byte_and_only_root_reads_it(deployments):
    text = "[program:shop-worker-a-00000001]\ncommand=é \\x00 %% ;\n"
    deployments.write(record("one", programs=()) | {"programs": [program("shop-worker-a-00000001", text)]})
    deployments.point("one")
    assert deployments.current()["programs"][0]["conf"] == text
    assert (deployments.directory / "one.json").stat().st_mode & 0o777 == 0o600
    assert deployments.directory.stat().st_mode & 0o777 == 0o700


def test_a_draft_that_was_left_over_is_noted_as_interrupted_once(deployments):
    draft = {"id": "one", "action": "deploy", "who": "anna", "release": "r2", "from": "r1", "phase": "release"}
    deployments.begin(draft)
    deployments.note_programs(["shop-worker-"], [program("shop-worker-a-00000001")], "workers", is_change=True)
    deployments.begin(draft)
    assert deployments.draft()["begun"] == ["workers"], "the same run goes on"
    assert not deployments.audit.exists()
    deployments.begin({**draft, "id": "two"})
    [line] = audit(deployments)
    assert (line["who"], line["action"], line["deployment"], line["to"]) == ("anna", "deploy", "one", "r2")
    assert line["outcome"] == "interrupted in phase workers"
    assert deployments.draft()["begun"] == ["workers"], "what the interrupted run handed over may still run"
    assert deployments.draft()["programs"] == []


def test_a_failure_that_was_kept_is_not_called_interrupted(deployments):
    deployments.begin({"id": "one", "action": "deploy"})
    deployments.keep_draft("web on hub")
    deployments.begin({"id": "two", "action": "rollback"})
    assert not deployments.audit.exists()


def test_programs_of_other_prefixes_stay_in_the_draft(deployments):
    deployments.begin({"id": "one"})
    deployments.note_programs(["shop-worker-"], [program("shop-worker-a-00000001")], "workers", is_change=False)
    deployments.note_programs(["shop-web-"], [program("shop-web-00000001")], "web", is_change=True)
    deployments.note_programs(["shop-worker-"], [program("shop-worker-b-00000001")], "workers", is_change=False)
    assert {one["name"] for one in deployments.draft()["programs"]} == {"shop-web-00000001", "shop-worker-b-00000001"}
    assert deployments.draft()["begun"] == ["web"]


def test_what_an_older_kit_has_deployed_is_adopted_once(deployments, tmp_path):
    conf_dir = tmp_path / "conf.d"
    conf_dir.mkdir()
    for name, owner in (
        ("shop-worker-a-00000001", "shop-worker-"), ("shop-scheduler-00000001", "shop-scheduler-"),
        ("shop-x", "other-"),
    ):  # fmt: skip
        (conf_dir / f"{name}.conf").write_text(f"# owner: celery-ops {owner}\n[program:{name}]\n")
    (conf_dir / "shop-foreign.conf").write_bytes("; grün\n[program:shop-foreign]\n".encode("latin-1"))
    deployments.adopt("", "", conf_dir)
    assert deployments.current() == {}, "nothing was deployed"
    deployments.adopt("r1", "env-1", conf_dir)
    adopted = deployments.current()
    assert (adopted["id"], adopted["release"], adopted["environment"]) == (ADOPTED, "r1", "env-1")
    assert {one["name"]: one["strategy"] for one in adopted["programs"]} == {
        "shop-worker-a-00000001": "overlap", "shop-scheduler-00000001": "replace",
    }  # fmt: skip
    deployments.write(record("two", ADOPTED))
    deployments.point("two")
    deployments.adopt("r2", "env-2", conf_dir)
    assert deployments.read(ADOPTED)["release"] == "r1"


def test_an_adopted_worker_is_asked_whether_it_consumes(deployments, tmp_path):
    name, release = "shop-worker-a-00000001", "/srv/shop/releases/r1"
    command = (
        f"{release}/venv/bin/celery-ops-guard --app shop --program {name} --pidfile /run/shop/{name}.pid --user shop "
        f"--env-file /etc/shop/env-1 --chdir {release}/app --drain-timeout 330 -- {release}/venv/bin/celery "
        f"-A shop.tasks worker -l INFO -n {name}@here -Q a,b -c 2 -P prefork"
    )
    (tmp_path / f"{name}.conf").write_text(
        f"# owner: celery-ops shop-worker-\n[program:{name}]\ncommand={command}\nuser=root\n"
    )
    deployments.adopt("r1", "env-1", tmp_path)
    [worker] = deployments.current()["programs"]
    assert worker["ready"] == [
        *("/usr/sbin/runuser", "-u", "shop", "--"),
        *(f"{release}/venv/bin/celery-ops-env", "/etc/shop/env-1", "--chdir", f"{release}/app", "--"),
        *(f"{release}/venv/bin/celery-ops-ready", "-A", "shop.tasks", "--node", f"{name}@here", "--queues", "a,b"),
        *("--canary-file", f"/run/shop/{name}.canary", "--timeout", "60"),
    ]
    assert worker["ready_timeout"] == 60


def test_pruned_is_what_no_rollback_needs(deployments):
    before = ""
    for number in range(6):
        deployments.write(record(f"d{number}", before, live_at=float(number)))
        before = f"d{number}"
    deployments.point("d1")  # rolled back far
    deployments.prune(2)
    assert set(deployments.all()) == {"d0", "d1", "d4", "d5"}, "the current one, the one before, and the newest two"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, []),
        ({"environment": "env-2", "programs": ("shop-worker-a-00000002",)}, ["environment"]),
        ({"release": "r2", "programs": ("shop-worker-a-00000002",)}, ["release"]),
        ({"programs": ("shop-worker-a-00000002",)}, ["programs"]),
        ({"release": "r2", "programs": ("shop-worker-a-00000002", "shop-worker-b-00000001")}, ["release", "programs"]),
    ],
)
def test_what_changed_from_one_deployment_to_the_next(changes, parts):
    assert differences(record("one"), record("two", **changes)) == parts


def test_a_program_that_runs_under_another_name_makes_no_other_deployment():
    """As after a rollback to a generation that still finishes a task."""
    program = Generation("shop-worker-a", "shop-worker-a-11111111", "[program:shop-worker-a-11111111]\n")
    again = program.again(1)
    assert again.name != program.name and f"[program:{again.name}]" in again.conf
    records = [
        {"release": "r", "environment": "env-1", "programs": [asdict(one)]} for one in (program, again, again.again(1))
    ]
    assert len({repr(identity(record)) for record in records}) == 1


def test_a_deployment_over_again_with_another_python_is_told_from_one_with_other_settings():
    def deployed(generation, python="3.11", concurrency=2, timeout=60, **changes):
        worker, scheduler = f"shop-worker-a-{generation}", f"shop-scheduler-{generation}"
        programs = [
            {"name": worker, "conf": f"[program:{worker}]\ncommand=celery -c {concurrency} -n {worker}@h\n"}
            | {"ready": ["celery-ops-ready", "--node", f"{worker}@h", "--timeout", str(timeout)]},
            {"name": scheduler, "conf": f"[program:{scheduler}]\ncommand=--schedule /s/beat-schedule-py{python}\n"},
        ]
        return {"release": "r1", "environment": "env-1", "programs": programs, **changes}

    old = deployed("11111111")
    assert is_renewal(old, deployed("22222222", python="3.13"))
    assert not is_renewal({}, old)
    for changes in ({"concurrency": 3}, {"timeout": 90}, {"release": "r2"}, {"environment": "env-2"}):
        assert not is_renewal(old, deployed("22222222", **changes)), changes
    assert not is_renewal(old, {**old, "programs": old["programs"][:1]})


def test_a_scheduler_without_the_lease_is_told_from_one_with_it():
    def record(*commands):
        return {"programs": [{"name": "shop-scheduler-01234567", "conf": f"command={one} beat"} for one in commands]}

    assert has_lone_scheduler(record("/srv/shop/releases/r1/venv/bin/celery -A shop"))
    assert not has_lone_scheduler(record("/srv/shop/releases/r1/bin/celery-ops-scheduler -A shop"))
    assert not has_lone_scheduler(record())


def test_a_line_that_a_full_disk_left_half_written_hides_no_other(tmp_path):
    deployments = Deployments("shop", tmp_path)
    deployments.audit = tmp_path / "log/deploys.log"
    deployments.append({"action": "deploy", "outcome": "failed: x"})
    with deployments.audit.open("a") as log:
        log.write('{"at": "2026-11')
    assert deployments.has_failed()
    deployments.append({"action": "deploy", "outcome": "good"})
    assert [entry["outcome"] for entry in deployments.last(3)] == ["good", "failed: x"]
