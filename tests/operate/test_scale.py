"""scale: refused with the line to edit, as long as the inventory and the workers have another number."""

import json
import re

from support.control import deployed, play
from support.long import LONG


def test_another_number_is_refused_with_the_line_and_the_command(host):
    pids = host.running()
    done = play("scale", celery_app_scale="default=6")
    assert done.rc == 2
    assert f"default has 0 of 2 slots busy on {host.name}" in done.words
    assert "Write concurrency: 6 in the entry default of celery_worker_programs (" in done.words
    assert ".yml:" in done.words and "playbooks/deploy.yml" in done.words
    assert host.running() == pids


def test_the_number_that_runs_is_nothing_to_do(host):
    done = play("scale", celery_app_scale="default=2")
    assert done.rc == 0, done.text
    assert "nothing to do" in done.words


@LONG
def test_a_rush_hour_is_what_is_typed_now_and_ends_with_a_plain_deploy(host):
    done = play("scale", celery_app_scale="default=3", celery_app_scale_until="18:00")
    assert done.rc == 2
    extra = re.findall(r"deploy\.yml -e '(.*?)'", done.words)[0]
    assert "systemd-run --on-calendar=" in done.words
    try:
        deployed(host, **json.loads(extra))
        assert "-c 3 " in host.command_of(host.program("worker-default"))
    finally:
        deployed(host)
    assert "-c 2 " in host.command_of(host.program("worker-default"))
