"""supervisor/logs.py: what is deleted of generations that are gone, and what is not."""

import fcntl
import os

from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.logs import point, prune_logs, prune_state

OLD, NEW = "app-worker-a-11111111", "app-worker-a-22222222"
PREFIXES = ["app-worker-"]


def names(directory):
    return {path.name for path in directory.iterdir()}


def test_the_stable_name_leaves_the_application_out(tmp_path):
    for name in (OLD, NEW):
        point("app", "app-worker-a", str(tmp_path / f"{name}.log"))
        assert str((tmp_path / "worker-a.log").readlink()) == f"{name}.log"


def test_somebodys_file_with_the_stable_name_is_left_alone(tmp_path):
    (tmp_path / "worker-a.log").write_text("mine\n")
    point("app", "app-worker-a", str(tmp_path / f"{NEW}.log"))
    assert (tmp_path / "worker-a.log").read_text() == "mine\n"


def test_a_program_without_generations_has_its_own_name(tmp_path):
    point("app", "worker-a", str(tmp_path / "worker-a.log"))
    assert names(tmp_path) == set()


def test_the_newest_of_the_logs_that_are_gone_are_kept_for_each_program(tmp_path):
    for number in range(4):
        for program in ("a", "b"):
            path = tmp_path / f"app-worker-{program}-{number}1111111.log"
            path.touch()
            os.utime(path, (number, number))
    present = {"app-worker-a-01111111"}
    deleted = prune_logs(tmp_path, PREFIXES, present, 2)
    assert deleted == ["app-worker-a-11111111.log", "app-worker-b-01111111.log", "app-worker-b-11111111.log"]


def test_other_files_in_the_log_directory_stay(tmp_path):
    for name in ("deploys.log", "worker-a.log", "app-web-11111111.log", "app-worker-a.log", f"{OLD}.log.gz"):
        (tmp_path / name).touch()
    (tmp_path / f"{OLD}.log").symlink_to("deploys.log")
    before = names(tmp_path)
    assert prune_logs(tmp_path, PREFIXES, set(), 0) == [] and names(tmp_path) == before


def test_a_stable_name_that_leads_nowhere_goes_with_the_last_log(tmp_path):
    log = tmp_path / f"{OLD}.log"
    log.touch()
    point("app", "app-worker-a", str(log))
    prune_logs(tmp_path, PREFIXES, set(), 0)
    assert names(tmp_path) == set()


def test_what_runs_without_supervisord_knowing_keeps_its_files(tmp_path):
    for kind in ("pid", "pid.lock", "heartbeat", "canary"):
        (tmp_path / f"{OLD}.{kind}").touch()
        (tmp_path / f"{NEW}.{kind}").touch()
    (tmp_path / "scheduler.pid.lock").touch()
    with (tmp_path / f"{OLD}.pid.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deleted = prune_state(tmp_path, PREFIXES, set())
    assert deleted == sorted(f"{NEW}.{kind}" for kind in ("pid", "pid.lock", "heartbeat", "canary"))
    assert len(names(tmp_path)) == 5


def test_links_and_pipes_of_the_application_lead_nowhere(tmp_path):
    """The directory belongs to the application, and we are root."""
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.write_text("precious")
    (run / f"{OLD}.pid.lock").symlink_to(precious)
    (run / f"{OLD}.heartbeat").symlink_to(precious)
    os.mkfifo(run / f"{NEW}.pid.lock")
    (run / f"{NEW}.canary").mkdir()
    prune_state(run, PREFIXES, set())
    assert precious.read_text() == "precious" and names(run) == {f"{NEW}.canary"}
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(run)
    (run / f"{OLD}.pid").touch()
    assert prune_state(elsewhere, PREFIXES, set()) == []
