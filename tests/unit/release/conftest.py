"""A host for releases, empty or with one that is good."""

from __future__ import annotations

import os

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import release_build
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over
from ansible_collections.celery_ops.kit.plugins.modules import release
from support.release_host import Host, quick_python


@pytest.fixture(autouse=True, scope="session")
def _not_nicer():
    """A build makes its process nicer, for good: here that would be all tests' after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release_build, "NICER", 0)
        yield


@pytest.fixture(scope="session")
def quick_virtualenvs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Host, "python", quick_python(tmp_path_factory.mktemp("python")))
        yield


@pytest.fixture
def conf_d(tmp_path, monkeypatch, quick_virtualenvs):
    monkeypatch.setattr(release, "CONF_D", tmp_path / "conf.d")
    before = os.umask(0o077)  # a hardened host's
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def no_settings_of_another():
    """The reference application's settings are pytest-django's business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        yield


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory, quick_virtualenvs):
    """A host with a good release. A test that damages it sees it built anew."""
    before = os.umask(0o077)
    host = Host(tmp_path_factory.mktemp("built"))
    host.build()
    host.releases.write_note(host.packed["id"], status="good", good_at=1)
    os.umask(before)
    return host


@pytest.fixture
def login(monkeypatch):
    """Take over from a login that has set this."""

    def set_(**variables):
        for name, value in {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **variables}.items():
            monkeypatch.setenv(name, value)
        take_over()

    return set_
