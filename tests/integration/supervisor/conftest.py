"""A real supervisord for each test."""

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from support.supervisord import Supervisord


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(host_work, "RUN", tmp_path / "run-celery-ops")
    host = Supervisord(tmp_path)
    host.start()
    yield host
    host.stop()
