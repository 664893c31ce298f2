"""What no worker could run is kept with the reason, and replayed on request: never lost, rarely doubled."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.control import play
from support.host import APP, Host
from support.wait import wait_until

pytestmark = pytest.mark.only_on("trixie")
DEAD = f"{APP}.dead"
DIRECTORY = f"/var/lib/{APP}/failing"
COUNT = 200
KINDS = {
    "failing-unknown": ("failing.later", "no task of this name in the current release"),
    "failing-never": ("failing.never", "no task of this name in the current release"),
    "failing-pickle": ("failing.note", "its content is application/x-python-serialize"),
    "failing-old-pickle": ("?", "its content is application/x-python-serialize"),
    "failing-damaged": ("failing.note", "by the task itself, damaged"),
    "failing-poison": ("failing.poison", "again and again the process that ran it died"),
}


class Failing:
    """The application failing.py on a host, with its own queue and its own worker."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def command(self, words: str) -> str:
        """How a command of the release is run on it."""
        return f"{APP} env -C {DIRECTORY} {words}"

    def do(self, words: str) -> str:
        """Run it; return what it prints."""
        return self.host.output(self.command(words))

    def dead(self, words: str) -> str:
        """Run celery-ops-dead-letters; return what it says."""
        return self.do(f"celery-ops-dead-letters {words} --queue {DEAD}")

    def listed(self) -> dict[str, tuple[str, str]]:
        """Task and reason of every dead letter by id."""
        rows = re.findall(r"^    (\S+)  (\S+)  (\S+)  \d+ \w+$", self.dead("list -A failing"), re.M)
        return {id_: (task, reason) for id_, task, reason in rows}

    def count(self, queue: str) -> int:
        """Messages in a queue that nobody holds; rabbitmqctl's numbers may be five seconds old."""
        return int(self.do(f"python failing.py count {queue}"))

    def notes(self) -> Counter[int]:
        """How often each numbered note ran."""
        return Counter(map(int, self.host.run(f"cat {DIRECTORY}/failing.notes").stdout.split()))

    def clear(self) -> None:
        """Discard what this application's tasks left in the dead queue."""
        tasks = ("failing.note", "failing.poison", "failing.later", "failing.never")
        for chosen in (*(f"--task {task}" for task in tasks), "--id failing-old-pickle"):
            self.dead(f"discard {chosen} --confirm yes")

    @contextmanager
    def worker(self, release: int) -> Iterator[None]:
        """A worker of the first or the second release."""
        options = f"worker -Q failing -c 2 -n failing@{self.host.name} --pidfile {DIRECTORY}/worker.pid"
        environment = f"FAILING_RELEASE={release} "
        words = ("docker", "exec", self.host.name, "sh", "-c")
        command = environment + self.command(f"celery -A failing {options} --logfile {DIRECTORY}/worker.log")
        process = subprocess.Popen((*words, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            self.host.run(f"kill -TERM $(cat {DIRECTORY}/worker.pid)")
            process.wait(40)


@pytest.fixture(scope="module")
def failing(host: Host) -> Iterator[Failing]:
    """The application, and one dead-lettered message of each kind."""
    failing = Failing(host)
    host.output(f"install -d -o {APP} {DIRECTORY}")
    here = Path(__file__).with_name("failing.py")
    subprocess.run(("docker", "cp", "-q", str(here), f"{host.name}:{DIRECTORY}/failing.py"), check=True)
    try:
        with failing.worker(release=1):
            failing.do("python failing.py kinds")
            wait_until(lambda: KINDS.keys() <= failing.listed().keys(), 60, "one dead-lettered task of each kind")
        yield failing
    finally:
        failing.clear()
        host.run(f"rabbitmqctl -q -p {APP} delete_queue failing; rm -r {DIRECTORY}")


def test_each_kind_is_listed_with_its_task_and_reason(failing):
    said, listed = failing.dead("list -A failing"), failing.listed()
    for id_, (task, why) in KINDS.items():
        reason = "delivery_limit" if id_ == "failing-poison" else "rejected"
        assert listed[id_] == (task, reason)
        assert re.search(rf"^\d+ x {re.escape(task)} from queue failing, .*\n    why: .*{why}", said, re.M), said


def test_a_pickle_is_not_opened(failing):
    assert 1001 not in failing.notes()


def test_looking_takes_nothing_however_often(failing):
    before = failing.count(DEAD)
    failing.do(f"python failing.py look {DEAD} 25")
    assert failing.count(DEAD) == before


def test_the_playbook_lists_and_in_check_mode_nothing_else(failing):
    before = failing.count(DEAD)
    run = play("dead_letters", failing.host, options=["--check"], celery_app_dead_letters="discard")
    assert run.rc == 0, run.text
    assert "failing-unknown" in run.text
    assert re.search(r"changed=0 ", run.text)
    assert failing.count(DEAD) == before


def test_discard_has_to_be_confirmed_and_takes_what_was_chosen(failing):
    before = failing.count(DEAD)
    run = play("dead_letters", failing.host, celery_app_dead_letters="discard")
    assert run.rc != 0
    assert "celery_app_dead_letters_confirm=yes" in run.text
    refused = failing.host.run(failing.command(f"celery-ops-dead-letters discard --queue {DEAD}"))
    assert (refused.rc, failing.count(DEAD)) == (2, before)

    chosen = {"celery_app_dead_letters_id": "failing-damaged", "celery_app_dead_letters_confirm": "yes"}
    run = play("dead_letters", failing.host, celery_app_dead_letters="discard", **chosen)
    assert "1 of" in run.text and "changed=1 " in run.text, run.text
    entry = failing.host.last_deploy()
    said = f"1 of {before} dead letters discarded with id failing-damaged; {before - 1} left in {DEAD}"
    assert (entry["action"], entry["changed"], entry["outcome"]) == ("dead_letters", [said], "good")
    assert (failing.count(DEAD), "failing-damaged" in failing.listed()) == (before - 1, False)


def test_an_unknown_task_is_done_after_the_release_that_knows_it_and_dies_again_without(failing):
    with failing.worker(release=2):
        for task in ("failing.later", "failing.never"):
            said = failing.dead(f"replay --task {task}")
            assert said.startswith("1 of"), said  # once each, though the second is back at once
        wait_until(lambda: failing.notes()[1000] == 1, 30, "the replayed task, done")
        wait_until(lambda: "failing-never" in failing.listed(), 10, "the other one, dead again")
    assert "failing-unknown" not in failing.listed()


def test_an_expired_task_is_kept_and_an_old_tick_is_not(failing):
    failing.do("python failing.py expiring 1")
    wait_until(lambda: failing.listed().get("failing-note-0") == ("failing.note", "expired"), 15, "the expired task")
    assert "celery_ops.tick" not in failing.dead("list")
    assert failing.count("failing") == 1  # the tick waits for a worker to drop it


def test_a_message_whose_queue_is_gone_stays(failing):
    failing.host.output(f"rabbitmqctl -q -p {APP} delete_queue failing")
    before = failing.count(DEAD)
    said = failing.dead("replay --id failing-note-0")
    assert said.startswith("unchanged") and "its queue failing is gone" in said
    assert failing.count(DEAD) == before


def test_a_replay_killed_half_way_loses_nothing(failing):
    failing.dead("discard --task failing.note --confirm yes")
    others = failing.count(DEAD)
    failing.do(f"python failing.py expiring {COUNT}")
    wait_until(lambda: failing.count(DEAD) == others + COUNT, 30, f"{COUNT} expired tasks in {DEAD}")

    kills, step, before = 2, COUNT // 5, failing.count("failing")
    for kill in range(1, kills + 1):
        died = failing.host.run(failing.command(f"python failing.py replay-and-die {DEAD} {step}"))
        assert died.rc == 128 + signal.SIGKILL, died
        assert failing.count("failing") == before + kill * step
        # What it held comes back when the broker has noticed that its connection is gone.
        there = others + COUNT - kill * (step - 1)
        wait_until(lambda there=there: failing.count(DEAD) >= there, 10, f"{there} messages in {DEAD}")
    assert "replayed" in failing.dead("replay --task failing.note")
    assert failing.count(DEAD) == others

    with failing.worker(release=1):
        # Not only taken: a worker that is told to finish gives back what it has not begun.
        wait_until(lambda: set(range(COUNT)) <= failing.notes().keys(), 60, "every replayed task, done")
        wait_until(lambda: failing.count("failing") == 0, 30, "the doubled ones, too")
    ran = Counter({number: times for number, times in failing.notes().items() if number < COUNT})
    # What was published and not acknowledged when a kill came: one message, and acknowledgements under way.
    assert ran.total() - COUNT <= 3 * kills, f"{ran.total() - COUNT} doubled"
