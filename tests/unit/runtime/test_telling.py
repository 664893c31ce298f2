"""What the watchdog did is told by a process of its own, at most once a minute, and never holds the watchdog up."""

from __future__ import annotations

import json
import time

import pytest
from celery_ops.launch.process import MARK
from celery_ops.watchdog import telling
from celery_ops.watchdog.telling import LINES, PAUSE, Teller
from support.control import ROOT
from support.wait import wait_until
from support.webhook import webhook


@pytest.fixture
def texts():
    """What a webhook was told, and its URL."""
    with webhook() as served:
        yield served


@pytest.fixture
def teller(tmp_path, monkeypatch, texts):
    """One that tells the webhook, and one that nobody answers."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime"))
    monkeypatch.setenv(MARK, "the watchdog's own")
    targets = [{"webhook": texts[1]}, {"webhook": "http://127.0.0.1:9/s3cret"}]
    about = {"app": "shop", "host": "w1", "stage": "production"}
    targets = [{**target, "events": ["watchdog"]} for target in targets]
    (tmp_path / "notify.json").write_text(json.dumps({**about, "targets": targets}))
    return Teller(tmp_path / "notify.json")


def test_lines_come_in_one_notice_and_the_next_a_minute_later(teller, texts, capfd):
    told, now = texts[0], time.monotonic()
    teller.add("default: deaf: SIGTERM sent to 7")
    teller.add("pid 9 (a worker) has ended")
    teller.step(now)
    assert teller.sender.wait(20) == 0
    assert told == [
        "shop (production): the watchdog acted, on w1\ndefault: deaf: SIGTERM sent to 7\npid 9 (a worker) has ended"
    ]
    said = capfd.readouterr()
    assert "celery_app_notify[1] (webhook 127.0.0.1) got no notice" in said.out
    assert "s3cret" not in said.out + said.err
    for number in range(LINES + 5):
        teller.add(f"line {number}")
    teller.step(now + PAUSE - 1)
    assert len(teller.lines) == LINES, "sent before its time"
    teller.step(now + PAUSE)
    assert teller.sender.wait(20) == 0
    assert (len(told), len(told[1].splitlines()), told[1].splitlines()[-1]) == (2, LINES + 2, "... and 5 more")


def test_the_last_lines_are_sent_when_the_watchdog_ends(teller, texts):
    for line in ("one", "two"):
        teller.add(line)
        teller.step(time.monotonic(), last=line == "two")
    wait_until(lambda: len(texts[0]) == 2, 20, "both notices")


def test_a_sender_that_hangs_holds_nothing_up_and_is_ended(teller, monkeypatch, tmp_path):
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 300\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(telling.sys, "executable", str(hanging))
    begun = now = time.monotonic()
    for later in (0, PAUSE - 1, PAUSE + 1):
        teller.add("line")
        teller.step(now + later)
    assert time.monotonic() - begun < 5
    assert teller.sender.wait(20) == -9


def test_without_targets_and_without_a_python_nothing_happens(tmp_path, monkeypatch, teller):
    nobody = Teller(tmp_path / "none")
    nobody.add("line")
    nobody.step(0.0)
    assert (nobody.sender, nobody.lines) == (None, [])
    monkeypatch.setattr(telling.sys, "executable", "/none")
    teller.add("line")
    teller.step(time.monotonic())
    assert (teller.sender, teller.lines) == (None, [])
