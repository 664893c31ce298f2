"""What no worker could do is kept with the reason, and comes back when it is told to: never lost, rarely doubled."""

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
DIRECTORY = f"/var/lib/{APP}/letters"
COUNT = 200
KINDS = {
    "letters-unknown": ("letters.later", "no task of this name in the current release"),
    "letters-never": ("letters.never", "no task of this name in the current release"),
    "letters-pickle": ("letters.note", "its content is application/x-python-serialize"),
    "letters-old-pickle": ("?", "its content is application/x-python-serialize"),
    "letters-damaged": ("letters.note", "by the task itself, damaged"),
    "letters-poison": ("letters.poison", "again and again the process that ran it died"),
}


class Letters:
    """The application letters.py on a host, with its own queue and its own worker."""

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
        rows = re.findall(r"^    (\S+)  (\S+)  (\S+)  \d+ \w+$", self.dead("list -A letters"), re.M)
        return {id_: (task, reason) for id_, task, reason in rows}

    def count(self, queue: str) -> int:
        """Messages in a queue that nobody holds; rabbitmqctl's numbers may be five seconds old."""
        return int(self.do(f"python letters.py count {queue}"))

    def notes(self) -> Counter[int]:
        """How often each numbered note ran."""
        return Counter(map(int, self.host.run(f"cat {DIRECTORY}/letters.notes").stdout.split()))

    def clear(self) -> None:
        """Discard what this application's tasks left in the dead queue."""
        tasks = ("letters.note", "letters.poison", "letters.later", "letters.never")
        for chosen in (*(f"--task {task}" for task in tasks), "--id letters-old-pickle"):
            self.dead(f"discard {chosen} --confirm yes")

    @contextmanager
    def worker(self, release: int) -> Iterator[None]:
        """A worker of the first or the second release."""
        options = f"worker -Q letters -c 2 -n letters@{self.host.name} --pidfile {DIRECTORY}/worker.pid"
        environment = f"LETTERS_RELEASE={release} "
        words = ("docker", "exec", self.host.name, "sh", "-c")
        command = environment + self.command(f"celery -A letters {options} --logfile {DIRECTORY}/worker.log")
        process = subprocess.Popen((*words, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            self.host.run(f"kill -TERM $(cat {DIRECTORY}/worker.pid)")
            process.wait(40)


@pytest.fixture(scope="module")
def letters(host: Host) -> Iterator[Letters]:
    """The application, and one letter of each kind that is dead by its worker's doing."""
    letters = Letters(host)
    host.output(f"install -d -o {APP} {DIRECTORY}")
    here = Path(__file__).with_name("letters.py")
    subprocess.run(("docker", "cp", "-q", str(here), f"{host.name}:{DIRECTORY}/letters.py"), check=True)
    try:
        with letters.worker(release=1):
            letters.do("python letters.py kinds")
            wait_until(lambda: KINDS.keys() <= letters.listed().keys(), 60, "one dead letter of each kind")
        yield letters
    finally:
        letters.clear()
        host.run(f"rabbitmqctl -q -p {APP} delete_queue letters; rm -r {DIRECTORY}")


def test_each_kind_is_listed_with_its_task_and_reason(letters):
    said, listed = letters.dead("list -A letters"), letters.listed()
    for id_, (task, why) in KINDS.items():
        reason = "delivery_limit" if id_ == "letters-poison" else "rejected"
        assert listed[id_] == (task, reason)
        assert re.search(rf"^\d+ x {re.escape(task)} from queue letters, .*\n    why: .*{why}", said, re.M), said


def test_a_pickle_is_not_opened(letters):
    assert 1001 not in letters.notes()


def test_looking_takes_nothing_however_often(letters):
    before = letters.count(DEAD)
    letters.do(f"python letters.py look {DEAD} 25")
    assert letters.count(DEAD) == before


def test_the_playbook_lists_and_in_check_mode_nothing_else(letters):
    before = letters.count(DEAD)
    run = play("dead_letters", letters.host, options=["--check"], celery_app_dead_letters="discard")
    assert run.rc == 0, run.text
    assert "letters-unknown" in run.text
    assert re.search(r"changed=0 ", run.text)
    assert letters.count(DEAD) == before


def test_discard_has_to_be_confirmed_and_takes_what_was_chosen(letters):
    before = letters.count(DEAD)
    run = play("dead_letters", letters.host, celery_app_dead_letters="discard")
    assert run.rc != 0
    assert "celery_app_dead_letters_confirm=yes" in run.text
    refused = letters.host.run(letters.command(f"celery-ops-dead-letters discard --queue {DEAD}"))
    assert (refused.rc, letters.count(DEAD)) == (2, before)

    chosen = {"celery_app_dead_letters_id": "letters-damaged", "celery_app_dead_letters_confirm": "yes"}
    run = play("dead_letters", letters.host, celery_app_dead_letters="discard", **chosen)
    assert "1 of" in run.text and "changed=1 " in run.text, run.text
    assert (letters.count(DEAD), "letters-damaged" in letters.listed()) == (before - 1, False)


def test_an_unknown_task_is_done_after_the_release_that_knows_it_and_dies_again_without(letters):
    with letters.worker(release=2):
        for task in ("letters.later", "letters.never"):
            said = letters.dead(f"replay --task {task}")
            assert said.startswith("1 of"), said  # once each, though the second is back at once
        wait_until(lambda: letters.notes()[1000] == 1, 30, "the replayed task, done")
        wait_until(lambda: "letters-never" in letters.listed(), 10, "the other one, dead again")
    assert "letters-unknown" not in letters.listed()


def test_an_expired_task_is_kept_and_an_old_tick_is_not(letters):
    letters.do("python letters.py expiring 1")
    wait_until(lambda: letters.listed().get("letters-note-0") == ("letters.note", "expired"), 15, "the expired task")
    assert "celery_ops.tick" not in letters.dead("list")
    assert letters.count("letters") == 1  # the tick waits for a worker to drop it


def test_a_letter_whose_queue_is_gone_stays(letters):
    letters.host.output(f"rabbitmqctl -q -p {APP} delete_queue letters")
    before = letters.count(DEAD)
    said = letters.dead("replay --id letters-note-0")
    assert said.startswith("unchanged") and "its queue letters is gone" in said
    assert letters.count(DEAD) == before


def test_a_replay_killed_half_way_loses_nothing(letters):
    letters.dead("discard --task letters.note --confirm yes")
    others = letters.count(DEAD)
    letters.do(f"python letters.py expiring {COUNT}")
    wait_until(lambda: letters.count(DEAD) == others + COUNT, 30, f"{COUNT} expired tasks in {DEAD}")

    kills, step, before = 2, COUNT // 5, letters.count("letters")
    for kill in range(1, kills + 1):
        died = letters.host.run(letters.command(f"python letters.py replay-and-die {DEAD} {step}"))
        assert died.rc == 128 + signal.SIGKILL, died
        assert letters.count("letters") == before + kill * step
        # What it held comes back when the broker has noticed that its connection is gone.
        there = others + COUNT - kill * (step - 1)
        wait_until(lambda there=there: letters.count(DEAD) >= there, 10, f"{there} letters in {DEAD}")
    assert "letters replayed" in letters.dead("replay --task letters.note")
    assert letters.count(DEAD) == others

    with letters.worker(release=1):
        # Not only taken: a worker that is told to finish gives back what it has not begun.
        wait_until(lambda: set(range(COUNT)) <= letters.notes().keys(), 60, "every replayed task, done")
        wait_until(lambda: letters.count("letters") == 0, 30, "the doubled ones, too")
    ran = Counter({number: times for number, times in letters.notes().items() if number < COUNT})
    # What was published and not acknowledged when a kill came: one letter, and acknowledgements under way.
    assert ran.total() - COUNT <= 3 * kills, f"{ran.total() - COUNT} doubled"
