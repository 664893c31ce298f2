"""The pages while no worker answers."""

import gc
import time

import numpy as np
import pytest
from django.core import signing
from petct.celery import app

from viewer import services, views
from viewer.models import Record
from viewer.tasks import loadArray


@pytest.fixture
def impatience(monkeypatch):
    monkeypatch.setattr(views, "WAIT_SECONDS", 0.01)


def test_unknown_user_gets_a_404_that_says_how_to_get_the_demo(client, db):
    page = client.get("/show/", {"userID": "<b>bob"})

    assert page.status_code == 404
    assert "There is no user “&lt;b&gt;bob”" in page.text
    assert "python manage.py make_demo" in page.text


def test_no_user_gets_a_404_too(client, db):
    assert client.get("/show/").status_code == 404


def test_the_page_waits_a_second_and_says_so(client, record):
    started = time.monotonic()
    page = client.get("/show/", {"userID": "anna"})

    assert 0.9 < time.monotonic() - started < 3
    assert page.status_code == 202
    assert "The worker needs longer than 1 s" in page.text
    answer = client.get(page.context["volume_url"])
    assert answer.status_code == 202
    assert answer.json() == {"state": "waiting"}


def test_the_volume_appears_when_it_comes(client, record, volume, impatience):
    page = client.get("/show/", {"userID": "anna"})
    ticket = page.context["ticket"]
    result, _ = services.redeem(ticket)

    app.backend.mark_as_done(result.id, volume)

    assert client.get(page.context["volume_url"])["Volume-Shape"] == "4,5,6"
    # Without script the page reloads itself with its ticket, and asks no second time.
    again = client.get("/show/", {"userID": "anna", "ticket": ticket})
    assert again.status_code == 200
    assert again.context["ticket"] != "" and services.redeem(again.context["ticket"])[0].id == result.id


def test_a_result_that_is_no_volume_is_named(client, record, impatience):
    page = client.get("/show/", {"userID": "anna"})
    result, _ = services.redeem(page.context["ticket"])

    app.backend.mark_as_done(result.id, {"not": "an array"})

    answer = client.get(page.context["volume_url"])
    assert (answer.status_code, answer.json()["error"]) == (500, "UnexpectedResult")


@pytest.mark.parametrize(
    "ticket",
    ["", "nonsense", signing.dumps({"task": "x", "record": 1}, key="other", salt="viewer.volume")],
    ids=["empty", "nonsense", "signed by another"],
)
def test_only_signed_tickets_open_results(client, db, ticket):
    assert client.get(f"/volume/{ticket}").status_code == 404


def test_stale_tickets_open_nothing(client, record, settings, monkeypatch):
    ticket = services.ticket_for(loadArray.AsyncResult("some-task"), record)
    monkeypatch.setattr(services, "TICKET_SECONDS", -1)

    assert client.get(f"/volume/{ticket}").json()["error"] == "BadTicket"


def test_a_ticket_for_another_record_is_not_used(client, record, impatience):
    other = Record.objects.create(userID="other", filepath="volume.mpv", shape=[4, 5, 6])
    ticket = services.ticket_for(loadArray.AsyncResult("some-task"), other)

    page = client.get("/show/", {"userID": "anna", "ticket": ticket})

    assert services.redeem(page.context["ticket"])[0].id != "some-task"


def test_the_index_lists_records_and_survives_an_absurd_one(client, record):
    Record.objects.create(userID="odd one&", filepath="../x", shape="nonsense", dtype="?")

    page = client.get("/")

    assert page.status_code == 200
    assert "/show/?userID=anna" in page.text
    assert "/show/?userID=odd%20one%26" in page.text


def test_no_page_keeps_a_volume(client, record, volume, impatience):
    """No array outlives its request: there is no cache in the process."""
    page = client.get("/show/", {"userID": "anna"})
    result, _ = services.redeem(page.context["ticket"])
    app.backend.mark_as_done(result.id, volume + 4321)
    client.get(page.context["volume_url"])
    del page, result
    gc.collect()

    kept = [array for array in gc.get_objects() if isinstance(array, np.ndarray) and array.shape == (4, 5, 6)]
    assert not [array for array in kept if array.max() > 4000]
