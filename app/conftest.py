"""What every test of the application has of its own: data folder, secret, broker and result store."""

import secrets
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from petct.celery import app
from pytest_django import Settings
from viewer.tests.folder_broker import use_folder

# Not in the fixture: Django refuses even to look at an empty key, and so to put it back.
django_settings.SECRET_KEY = secrets.token_hex(32)


@pytest.fixture(scope="session", autouse=True)
def broker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Send messages and results through this folder, never to a broker that happens to run here."""
    folder = tmp_path_factory.mktemp("broker")
    use_folder(app, folder)
    return folder


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, settings: Settings) -> Path:
    """Return this test's own data folder."""
    settings.PETCT_DATA_DIR = tmp_path / "data"
    settings.PETCT_DATA_DIR.mkdir()
    return settings.PETCT_DATA_DIR
