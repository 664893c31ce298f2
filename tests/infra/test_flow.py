"""What the system is for: tasks go from a producer to a worker and back, on command and on schedule."""

from __future__ import annotations

import json

from support.host import Host
from support.wait import wait_until


def result_of(host: Host, task_id: str) -> str:
    """Returns what `celery result` prints, or nothing while there is no result."""
    asked = host.run("timeout 15 " + host.in_release(f"celery -A petct result {task_id}"))
    return asked.stdout + asked.stderr


def test_a_task_sent_by_hand_comes_back(host):
    task_id = host.output(host.in_release("celery -A petct call celery_ops.tick")).splitlines()[-1]
    assert host.output("uname -n") in result_of(host, task_id)


def test_a_volume_comes_back_as_the_array_it_is(host):
    answer = json.loads(host.output(host.in_release("python manage.py round_trip")).splitlines()[-1])
    assert (answer["ok"], answer["shape"]) == (True, [110, 110, 187])


def test_the_schedule_ticks_and_the_tick_arrives(host):
    answer = json.loads(host.output(host.in_release("celery-ops-check -A petct --timeout 60")).splitlines()[-1])
    assert answer["passed"] is True
    assert answer["tick_age"] < 60


def test_a_bad_task_ends_in_a_named_error_and_the_worker_lives_on(host):
    worker = host.program("worker-default")
    call = host.in_release("""celery -A petct call loadArray --args='["../outside.mpv", [2, 2, 2]]'""")
    assert "OutsideDataDirectory" in result_of(host, host.output(call).splitlines()[-1])
    assert host.program("worker-default") == worker


def test_a_task_no_worker_knows_is_kept_not_lost(host):
    task_id = host.output(host.in_release("celery -A petct call no.such.task")).splitlines()[-1]
    listed = host.in_release(f"celery-ops-dead-letters list --queue petct.dead --id {task_id}")
    wait_until(lambda: f"{task_id}  no.such.task  rejected" in host.output(listed), 20, "the task in petct.dead")
