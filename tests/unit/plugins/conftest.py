"""A real supervisord for each test."""

import pytest
from host import Host


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    host.start()
    yield host
    host.stop()
