"""Through a real worker, in a thread: what comes out is what went in, errors included.

The same through RabbitMQ, Redis and processes is the kit's own test: `manage.py round_trip`.
"""

import json

import numpy as np
import pytest
from celery.contrib.testing.worker import start_worker
from django.core.management import call_command
from petct.celery import app

from viewer import errors, services, views
from viewer.management.commands import round_trip
from viewer.models import Record
from viewer.tasks import loadArray

# All with the database, or pytest-django would sort them apart and start the worker twice.
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("worker")]


@pytest.fixture(scope="module")
def worker(broker, django_db_setup, django_db_blocker):
    # Celery has Django check the models when a worker starts.
    with django_db_blocker.unblock(), start_worker(app, perform_ping_check=False):
        yield


def test_an_array_comes_back_as_the_same_array(volume):
    array = loadArray.delay("volume.mpv", [4, 5, 6]).get(timeout=20, interval=0.02)

    assert isinstance(array, np.ndarray)
    assert array.dtype == volume.dtype
    assert np.array_equal(array, volume)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("gone.mpv", [4, 5, 6]), errors.VolumeMissing),
        (("volume.mpv", [4, 5, 7]), errors.SizeMismatch),
        (("../outside.mpv", [4, 5, 6]), errors.OutsideDataDirectory),
        (("volume.mpv", [4, -5, 6]), errors.InvalidShape),
        (("volume.mpv", [4, 5, 6], "O"), errors.InvalidDtype),
    ],
)
def test_an_error_comes_back_under_its_name_and_the_worker_lives_on(volume, caplog, arguments, error):
    with pytest.raises(error) as raised:
        loadArray.delay(*arguments).get(timeout=20, interval=0.02)

    assert str(raised.value)
    assert loadArray.delay("volume.mpv", [4, 5, 6]).get(timeout=20, interval=0.02).shape == (4, 5, 6)
    # The worker says so after it has stored the result, and before it runs the next task.
    assert [record.levelname for record in caplog.records if error.__name__ in record.message] == ["ERROR"]


@pytest.fixture
def patience(monkeypatch):
    """Give a busy machine's worker longer than the page would."""
    monkeypatch.setattr(views, "WAIT_SECONDS", 20)


def test_the_page_shows_three_pictures_and_its_volume(client, record, patience):
    page = client.get("/show/", {"userID": "anna", "axial": "5", "coronal": "99", "sagittal": "-1"})

    assert page.status_code == 200
    assert page.content.count(b"data:image/png;base64,") == 3
    assert [plane["index"] for plane in page.context["planes"]] == [5, 4, 2]
    answer = client.get(page.context["volume_url"])
    assert answer.status_code == 200
    assert answer["Volume-Shape"] == "4,5,6"
    levels = np.frombuffer(answer.content, np.uint8).reshape(4, 5, 6)
    assert levels[0, 0, 0] == 0
    assert levels[3, 4, 5] == 255


def test_the_page_names_what_is_wrong_with_the_volume(client, record, patience):
    Record.objects.update(shape=[1, 1, 1])

    page = client.get("/show/", {"userID": "anna"})

    assert page.status_code == 500
    assert "SizeMismatch" in page.text
    assert "needs 4" in page.text


def test_the_volume_address_names_what_is_wrong(client, record):
    record.filepath = "gone.mpv"
    result = services.ask_for_volume(record)
    assert isinstance(result.get(timeout=20, interval=0.02, propagate=False), errors.VolumeMissing)

    answer = client.get(f"/volume/{services.ticket_for(result, record)}")

    assert answer.status_code == 500
    assert answer.json()["error"] == "VolumeMissing"


def test_round_trip_compares_byte_for_byte(record, capsys):
    Record.objects.update(userID="demo")

    call_command("round_trip", timeout=20)

    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    assert answer["task"] == "loadArray"
    assert answer["shape"] == [4, 5, 6]
    assert 0 < answer["seconds"] < 20


def test_round_trip_notices_a_single_wrong_voxel(record, volume, capsys, monkeypatch):
    Record.objects.update(userID="demo")
    wrong = volume.copy()
    wrong[3, 2, 1] += 1
    monkeypatch.setattr(round_trip, "expected_array", lambda record: wrong)

    with pytest.raises(SystemExit):
        call_command("round_trip", timeout=20)

    assert "differs from volume.mpv" in json.loads(capsys.readouterr().out)["reason"]


def test_round_trip_fails_with_a_reason(record, capsys):
    Record.objects.update(userID="demo", filepath="gone.mpv")

    with pytest.raises(SystemExit) as exit_:
        call_command("round_trip", timeout=20)

    answer = json.loads(capsys.readouterr().out)
    assert exit_.value.code == 1
    assert answer["ok"] is False
    assert answer["reason"].startswith("VolumeMissing: ")
