"""A real browser, and where its pictures go: fixtures for the tests of pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from support.control import EPHEMERAL

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """The directory for pictures of what was on the screen."""
    directory = Path(os.environ.get("CELERY_OPS_SCREENSHOTS", EPHEMERAL / "screenshots"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory
