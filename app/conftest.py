"""What every test of the application has of its own: data directory, secret, broker and result store."""

import os
import secrets
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from petct.celery import app
from pytest_django import Settings

# Not in the fixture: Django refuses even to look at an empty key, and so to put it back.
django_settings.SECRET_KEY = secrets.token_hex(32)


@pytest.fixture(scope="session", autouse=True)
def broker() -> None:
    """Send messages and results through memory, never to a broker that happens to run here."""
    # The environment would win over the configuration.
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        os.environ.pop(name, None)
    app.conf.update(
        broker_url="memory://", broker_transport_options={"polling_interval": 0.02}, result_backend="cache+memory://"
    )


@pytest.fixture(autouse=True)
def current_app() -> None:
    """Make this application the one that shared tasks belong to, whatever other tests of the process have made."""
    app.set_current()
    app.set_default()


@pytest.fixture(autouse=True)
def data_directory(tmp_path: Path, settings: Settings) -> Path:
    """Return this test's own data directory."""
    settings.PETCT_DATA_DIR = tmp_path / "data"
    settings.PETCT_DATA_DIR.mkdir()
    return settings.PETCT_DATA_DIR
