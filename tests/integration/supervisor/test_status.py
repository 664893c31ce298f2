"""What status and doctor see of a real supervisord that runs programs of others, too."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import doctor
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import facts, programs  # noqa: F401 - its checks
from ansible_collections.celery_ops.kit.plugins.module_utils.status import look
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status, look_at_programs
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import problems

WORKER = "app-worker-a-11111111"
THEIRS = """[group:app-old]
programs=app-worker-x
[program:app-worker-x]
command=sleep 60
[program:app-scheduler-beat]
command=sleep 60
autostart=false
"""


@pytest.fixture
def shared(host, monkeypatch):
    """A host with a worker of the kit's, and with programs of somebody whose names begin with the application's."""
    worker = host.program(WORKER)
    host.apply([worker])
    (host.conf_d / "app-old.conf").write_text(THEIRS)
    host.rpc.reloadConfig()
    for group in ("app-old", "app-scheduler-beat"):
        host.rpc.addProcessGroup(group)
    monkeypatch.setattr(facts, "CONF_D", host.conf_d)
    monkeypatch.setattr(facts, "SUPERVISORD_CONF", host.conf)
    monkeypatch.setattr(Deployments, "current", lambda _: {"programs": [worker]})
    return host


def test_programs_of_others_that_are_called_like_the_applications_are_not_its_own(shared):
    seen = Status("app", release="r1")
    look_at_programs(seen, shared.conf)
    assert list(seen.programs) == [WORKER]
    found = [line for line in problems(seen, has_programs=True) if "watchdog" not in line]
    assert found == []
    [recorded] = [one.run for one in doctor.CHECKS if one.id == "programs-recorded"]
    supervisor = facts.read_supervisor("app")
    assert [one.name for one in supervisor.programs] == [WORKER]
    assert recorded(facts.Facts("app", facts.Wanted(), supervisor=supervisor)).level == doctor.PASS


def test_a_file_of_somebody_else_that_is_no_utf_8_ends_neither_status_nor_doctor(shared, monkeypatch):
    comment = "; gr\xfcn\n".encode("latin-1")
    with shared.conf.open("ab") as file:
        file.write(comment)
    file = shared.conf_d / f"{WORKER}.conf"
    file.write_bytes(file.read_bytes() + comment)
    monkeypatch.setattr(look.Layout, "conf", lambda _, name: shared.conf_d / f"{name}.conf")
    seen = Status("app")
    look_at_programs(seen, shared.conf)
    assert list(seen.programs) == [WORKER]
    assert [one.name for one in facts.read_supervisor("app").programs] == [WORKER]
    assert list(facts.readable_secrets([file, shared.conf])) == []


def test_supervisors_sockets_are_found_however_its_configuration_is_written(shared):
    written = f"file={shared.socket}"
    text = shared.conf.read_text().replace(written, "; see [1]\nfile: %(here)s/supervisor.sock")
    shared.conf.write_text(text)
    seen = facts.read_supervisor("app")
    assert (seen.socket.path, seen.inet) == (str(shared.socket), "")
    (shared.conf_d / "web.conf").write_text("[inet_http_server]\n; not [::1]\nport = *:9001 ; for all\n")
    (shared.conf_d / "web2.conf").write_text("broken")
    assert facts.read_supervisor("app").inet == "*:9001"


def test_no_watchdog_is_missed_for_workers_that_only_finish_their_tasks(host, monkeypatch):
    monkeypatch.setattr(look.Layout, "conf", lambda _, name: host.conf_d / f"{name}.conf")
    done = host.directory / "done"
    host.apply([host.program(WORKER, ["--drain-until", done], settings=["stopwaitsecs=60"])])
    seen = Status("app")
    look_at_programs(seen, host.conf)
    assert not seen.watched
    assert host.apply([], drain_wait=0)["draining"] == [WORKER]
    look_at_programs(seen, host.conf)
    assert seen.programs[WORKER]["state"] == "STOPPING" and seen.watched
    done.touch()
