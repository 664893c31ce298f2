"""`celery_ops.publish_many` against the host's RabbitMQ: each message is confirmed, refused or named as unknown."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.host import APP, Host

pytestmark = pytest.mark.only_on("bare")  # RabbitMQ 3.10: the oldest
SCRIPT = Path(__file__).with_name("publishing.py")
TARGET = f"/var/lib/{APP}/publishing.py"


class Publishing:
    """The script on a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.words = host.in_release(f"python {TARGET}")

    def do(self, what: str) -> Any:
        """Run a part of it; return what it says."""
        return json.loads(self.host.output(f"{self.words} {what}").splitlines()[-1])

    def do_cut(self) -> Any:
        """Run the part that loses its connection, which is closed here when it says so."""
        words = ["docker", "exec", "-i", self.host.name, "sh", "-c", f"{self.words} cut"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            assert process.stdout.readline() == "CUT\n"
            self.host.output(f"rabbitmqctl -q close_all_connections --vhost {APP} 'test'")
            said, _ = process.communicate("\n", timeout=60)
        return json.loads(said.splitlines()[-1])


@pytest.fixture
def publishing(host: Host) -> Iterator[Publishing]:
    host.copy(SCRIPT, TARGET)
    publishing = Publishing(host)
    yield publishing
    publishing.do("clear")
    host.output(f"rm {TARGET}")


def test_all_are_in_their_queues_as_apply_async_would_put_them(publishing):
    said = publishing.do("all")
    assert said.pop("ids") == 3000
    assert all(said.values()), said


def test_what_the_broker_does_not_take_is_named_with_its_reason(publishing):
    said = publishing.do("refused")
    assert (said["exact"], said["all"], said["rest"]) == (True, True, [0, 0]), said
    none, nacked, unroutable, unwritable = said["refused"]
    assert (none, unroutable, unwritable) == (0, 300, 300) and 190 <= nacked <= 200, said
    assert said["why"][1:3] == [
        ["the broker refused it"],
        ["no queue is bound to the exchange 'publishing-nowhere' with routing key 'nowhere'"],
    ], said


def test_a_connection_lost_in_the_midst_leaves_no_message_in_doubt_but_the_unknown(publishing):
    said = publishing.do_cut()
    assert said["each_once"] and said["confirmed_are_there"] and said["others_are_unknown"] and said["again"], said
    assert 0 < said["unknown"] <= 500, said
