"""What status and doctor see of a real supervisord that runs programs of others, too."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import doctor
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import facts, programs  # noqa: F401 - its checks
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
