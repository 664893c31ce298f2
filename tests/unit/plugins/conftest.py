"""A real supervisord for each test."""

import pytest
from ansible.module_utils import host_work
from host import Host


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(host_work, "RUN", tmp_path / "run-celery-ops")
    host = Host(tmp_path)
    host.start()
    yield host
    host.stop()
