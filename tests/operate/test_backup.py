"""A backup of a host with tasks and results, restored after both were lost: everything is there again, in its order."""

from __future__ import annotations

import json
import re

import pytest
from support.control import EPHEMERAL, play
from support.long import LONG
from support.wait import wait_until

TASKS, LATER, KEYS = 100, 3, 50
BACKUPS = EPHEMERAL / "inventory/.backups"
FILL = f"""
import os, sys
sys.path.insert(0, ".")
import redis
from petct.celery import app
for n in range({TASKS}):
    app.send_task("loadArray", args=(f"/none/{{n}}", [1]), headers={{"n": n}}, priority=n % 3)
for n in range({LATER}):
    app.send_task("loadArray", args=("/later", [1]), countdown=5000)
store = redis.from_url(os.environ["CELERY_RESULT_BACKEND"])
for n in range({KEYS}):
    store.set(f"kept-{{n}}", bytes([0, 255, n]), ex=5000)
"""
LOOK = """
import json, os
import redis
from kombu import Connection
connection = Connection(os.environ["CELERY_BROKER_URL"])
channel, seen = connection.channel(), []
while message := channel.basic_get("petct"):
    headers = message.properties["application_headers"]
    if headers.get("n") is not None:
        seen.append([headers["n"], message.properties["priority"], headers.get("x-delivery-count") or 0])
store = redis.from_url(os.environ["CELERY_RESULT_BACKEND"])
keys = {key.decode(): [list(store.get(key)), store.ttl(key) > 4000] for key in store.keys("kept-*")}
print(json.dumps({"tasks": seen, "keys": keys}))
"""
PRIORITIES = """
import base64, json, os, subprocess
import amqp
from kombu import Connection
with Connection(os.environ["CELERY_BROKER_URL"]) as connection:
    channel = connection.default_channel
    channel.queue_declare("urgent", durable=True, auto_delete=False, arguments={"x-max-priority": 10})
    for n in range(20):
        channel.basic_publish(amqp.Message(str(n), priority=9 * (n % 2)), routing_key="urgent")
    channel.queue_declare("urgent", passive=True)
    path = os.path.expanduser("~/urgent")
    subprocess.run(["celery-ops-backup", "read", "-A", "petct", "--file", path, "urgent"], check=True, stdout=2)
    saved = [int(base64.b64decode(json.loads(line)["body"])) for line in open(path)]
    there = []
    while message := channel.basic_get("urgent", no_ack=True):
        there.append(int(message.body))
    channel.queue_delete("urgent")
    print(json.dumps([saved, there]))
"""
LOSE = "import os, redis; redis.from_url(os.environ['CELERY_RESULT_BACKEND']).flushdb()"


def python(host, text: str) -> str:
    """Run Python as the application does."""
    return host.output(host.in_release("python -"), stdin=text)


def waiting(host) -> dict[str, int]:
    """The messages of the queues that have some."""
    rows = json.loads(host.output("rabbitmqctl -q -p petct list_queues name messages --formatter json"))
    return {row["name"]: row["messages"] for row in rows if row["messages"]}


def delayed(host) -> int:
    """How many tasks wait for their ETA."""
    return sum(count for queue, count in waiting(host).items() if queue.startswith("celery_delayed"))


@pytest.fixture
def stopped(host):
    """Its worker and scheduler stopped, so that what waits can be counted."""
    names = " ".join(name for name in host.running() if "-worker-" in name or "-scheduler-" in name)
    host.output(f"supervisorctl stop {names}")
    yield
    host.output(f"supervisorctl start {names}")


@pytest.mark.timeout(400)
def test_what_was_lost_is_restored(stopped, host):
    before = set(BACKUPS.glob("*.sealed"))
    python(host, FILL)
    done = play("backup")
    assert done.rc == 0, done.text
    [file] = set(BACKUPS.glob("*.sealed")) - before
    assert {path.name for path in BACKUPS.iterdir()} == {path.name for path in [*before, file]}
    assert "keys in Redis" in done.words
    assert file.stat().st_mode & 0o777 == 0o600
    assert waiting(host)["petct"] >= TASKS, "the backup took messages away"
    entry = host.last_deploy()
    assert (entry["action"], entry["changed"]) == ("backup", [str(file)])
    again = play("backup", celery_app_backup_file=str(file))
    assert again.rc != 0
    assert "is there already" in again.words

    refused = play("restore", celery_app_backup_file=str(file))
    assert refused.rc != 0
    assert "celery_app_restore_used=yes" in refused.words

    # RabbitMQ counts the messages of quorum queues every five seconds.
    wait_until(lambda: delayed(host) == LATER, 30, f"{LATER} tasks wait for their ETA after the backup, too")
    for queue in waiting(host):
        host.output(f"rabbitmqctl -q -p petct purge_queue {queue}")
    wait_until(lambda: not waiting(host), 15, "empty queues")
    python(host, LOSE)
    restored = play("restore", celery_app_backup_file=str(file), options=["--skip-tags", "check"])
    assert restored.rc == 0, restored.text
    entry = host.last_deploy()
    assert entry["action"] == "restore" and f"from {file}" in entry["changed"][0]
    wait_until(lambda: delayed(host) == LATER, 30, f"{LATER} tasks wait for their ETA")
    found = json.loads(python(host, LOOK))
    assert found["tasks"] == [[n, n % 3, 0] for n in range(TASKS)]
    assert found["keys"] == {f"kept-{n}": [[0, 255, n], True] for n in range(KEYS)}


@pytest.mark.timeout(400)
def test_the_restored_tasks_run(host):
    wait_until(lambda: "petct" not in waiting(host), 90, "the queue is empty")
    for queue in waiting(host):
        host.output(f"rabbitmqctl -q -p petct purge_queue {queue}")
    assert host.task_comes_back()


def test_a_queue_with_priorities_is_saved_whole(host):
    """A copy of high priority is ahead of what was not read yet."""
    saved, there = json.loads(python(host, PRIORITIES).splitlines()[-1])
    assert saved == there == [*range(1, 20, 2), *range(0, 20, 2)]


@LONG
@pytest.mark.timeout(900)
def test_a_backup_is_restored_into_an_empty_host(host):
    """All that the kit has made on the host goes, with RabbitMQ, Redis and Supervisor; the secrets stay."""
    names = " ".join(name for name in host.running() if "-worker-" in name or "-scheduler-" in name)
    host.output(f"supervisorctl stop {names}")
    python(host, FILL)
    file = EPHEMERAL / "empty.sealed"
    file.unlink(missing_ok=True)
    assert play("backup", celery_app_backup_file=str(file)).rc == 0
    gone = play("uninstall", uninstall_confirm="yes", uninstall_services="yes")
    assert gone.rc == 0, gone.text
    assert host.run("test -e /srv/petct || test -e /var/lib/rabbitmq || test -e /var/lib/redis").rc != 0
    made = play("site")
    assert made.rc == 0, made.text
    assert not delayed(host)
    restored = play("restore", celery_app_backup_file=str(file), celery_app_restore_used="yes")
    assert restored.rc == 0, restored.text
    counts = dict(re.findall(r"^ *(petct|celery_delayed_\d+|Redis): (\d+ of \d+) ", restored.text, re.MULTILINE))
    of_redis = [int(number) for number in counts.pop("Redis").split(" of ")]
    assert of_redis[0] >= KEYS and of_redis[1] - of_redis[0] <= 1, "the scheduler's newest tick is there already"
    counted = [[int(number) for number in count.split(" of ")] for count in counts.values()]
    assert all(done == wanted for done, wanted in counted), restored.text
    later = sum(int(count.split()[0]) for queue, count in counts.items() if "delayed" in queue)
    assert int(counts["petct"].split()[0]) >= TASKS and later >= LATER
    assert "Send a task to a worker and back" in restored.words
    wait_until(lambda: delayed(host) == later, 30, f"{later} tasks wait for their ETA")
    keys = "import os, redis; print(len(redis.from_url(os.environ['CELERY_RESULT_BACKEND']).keys('kept-*')))"
    assert int(python(host, keys)) == KEYS


@LONG
@pytest.mark.timeout(400)
def test_a_restore_checks_that_tasks_run(host):
    file = EPHEMERAL / "checked.sealed"
    file.unlink(missing_ok=True)
    done = play("backup", celery_app_backup_file=str(file))
    assert done.rc == 0, done.text
    restored = play("restore", celery_app_backup_file=str(file), celery_app_restore_used="yes")
    assert restored.rc == 0, restored.text
    assert "Send a task to a worker and back" in restored.words
