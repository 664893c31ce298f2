"""The application under gunicorn, as in production, while the broker or the result store is down."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import petct
import pytest

APP = Path(petct.__file__).resolve().parent.parent
# Port 1 on loopback: refused at once.
NO_BROKER = {"CELERY_BROKER_URL": "amqp://127.0.0.1:1//", "CELERY_RESULT_BACKEND": "cache+memory://"}
NO_RESULT_STORE = {"CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0"}


def environment(directory: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(directory),
        "DATABASE_URL": f"sqlite:///{directory}/db.sqlite3",
        "PETCT_DATA_DIR": str(directory),
        **more,
    }


@contextmanager
def served(directory: Path, services: dict[str, str]) -> Iterator[Callable[[str], tuple[int, str, float]]]:
    """Give a function that fetches an address and returns status, body and seconds."""
    setup = (
        "import django; django.setup()\n"
        "from django.core.management import call_command; call_command('migrate', verbosity=0)\n"
        "from viewer.models import Record\n"
        "Record.objects.create(userID='anna', filepath='x', shape=[1, 1, 1])\n"
    )
    variables = environment(
        directory, PETCT_SECRET_KEY="only for this test", DJANGO_SETTINGS_MODULE="petct.settings", **services
    )
    subprocess.run([sys.executable, "-c", setup], env=variables, cwd=APP, check=True)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "petct.wsgi",
            "--bind",
            f"fd://{listener.fileno()}",
            "--threads",
            "2",
            "--no-control-socket",
        ],
        env=variables,
        cwd=APP,
        pass_fds=[listener.fileno()],
    )

    def fetch(path: str) -> tuple[int, str, float]:
        started = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body, time.monotonic() - started

    try:
        fetch("/healthz")
        yield fetch
    finally:
        process.terminate()
        process.wait(20)
        listener.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("served"), NO_BROKER) as fetch:
        yield fetch


def test_healthz_needs_no_broker(server):
    status, body, seconds = server("/healthz")

    assert (status, body) == (200, "ok\n")
    assert seconds < 1


def test_static_files_need_no_other_server(server):
    _, page, _ = server("/")

    for name in ("style.css", "icon.svg"):
        assert f"/static/petct/{name}" in page
        assert server(f"/static/petct/{name}")[0] == 200


def says_who_is_away(fetch, variable):
    for _ in range(2):
        status, body, seconds = fetch("/show/?userID=anna")

        assert status == 503
        assert "The workers are unreachable" in body
        assert f"({variable}) does not answer" in body
        assert "Traceback" not in body
        assert seconds < 5


def test_a_page_says_within_seconds_that_the_broker_is_away(server):
    says_who_is_away(server, "CELERY_BROKER_URL")


def test_a_page_says_within_seconds_that_the_result_store_is_away(tmp_path):
    with served(tmp_path, NO_RESULT_STORE) as fetch:
        says_who_is_away(fetch, "CELERY_RESULT_BACKEND")


def test_unknown_addresses_get_a_404(server):
    for path in ("/nowhere", "/photos/..%2f..%2fdb.sqlite3", "/show/?userID=nobody"):
        assert server(path)[0] == 404


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "PETCT_SECRET_KEY"),
        ({"PETCT_SECRET_KEY": "x", "PETCT_FLICKR_MAX_BYTES": "-5"}, "PETCT_FLICKR_MAX_BYTES is '-5'"),
    ],
)
def test_the_server_does_not_start_on_bad_settings(tmp_path, variables, message):
    run = subprocess.run(
        [sys.executable, "-c", "import petct.wsgi"],
        env=environment(tmp_path, **variables),
        cwd=APP,
        capture_output=True,
        text=True,
    )

    assert run.returncode == 1
    assert message in run.stderr.splitlines()[-1]


def test_debug_needs_no_secret(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", "import petct.wsgi"], env=environment(tmp_path, PETCT_DEBUG="1"), cwd=APP
    )

    assert run.returncode == 0
