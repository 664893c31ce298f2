"""The application under gunicorn, as in production, with broker and result store down."""

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import petct
import pytest

APP = Path(petct.__file__).resolve().parent.parent


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(folder),
        "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
        "PETCT_DATA_DIR": str(folder),
        # Port 1 on loopback: refused at once.
        "CELERY_BROKER_URL": "amqp://127.0.0.1:1//",
        "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0",
        **more,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a function that fetches an address and gives status, body and seconds."""
    folder = tmp_path_factory.mktemp("served")
    setup = (
        "import django; django.setup()\n"
        "from django.core.management import call_command; call_command('migrate', verbosity=0)\n"
        "from viewer.models import Record\n"
        "Record.objects.create(userID='anna', filepath='x', shape=[1, 1, 1])\n"
    )
    variables = environment(folder, PETCT_SECRET_KEY="only for this test", DJANGO_SETTINGS_MODULE="petct.settings")
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

    fetch("/healthz")
    yield fetch
    process.terminate()
    process.wait(20)
    listener.close()


def test_healthz_needs_no_broker(server):
    status, body, seconds = server("/healthz")

    assert (status, body) == (200, "ok\n")
    assert seconds < 1


def test_static_files_need_no_other_server(server):
    _, page, _ = server("/")

    for name in ("style.css", "icon.svg"):
        assert f"/static/petct/{name}" in page
        assert server(f"/static/petct/{name}")[0] == 200


def test_a_page_says_within_seconds_that_the_workers_are_out_of_reach(server):
    for _ in range(2):
        status, body, seconds = server("/show/?userID=anna")

        assert status == 503
        assert "The workers are out of reach" in body
        assert "does not answer" in body
        assert "Traceback" not in body
        assert seconds < 3


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
