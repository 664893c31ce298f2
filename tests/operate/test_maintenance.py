"""maintenance: the listener answers 503, nothing is refused; a deploy that stops everything around its migration."""

import http.client
import json

import pytest
from support.control import Variants, deployed, play
from support.host import PORT
from support.long import LONG
from support.wait import wait_until

pytestmark = pytest.mark.timeout(300)

PAUSED = "cat /var/lib/petct/pause.json"


def page(host):
    connection = http.client.HTTPConnection(host.address, PORT, timeout=20)
    connection.request("GET", "/show/?userID=demo")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers


def test_on_answers_503_over_a_restart_and_off_serves_again(host):
    done = play("maintenance", celery_app_maintenance="on")
    assert done.rc == 0, done.text
    assert "paused is everything on" in done.words and "the web (503)" in done.words
    status, headers = page(host)
    assert (status, headers["Retry-After"]) == (503, "60")
    host.await_consumers(0)
    again = play("restart", celery_app_restart="web,scheduler")
    assert again.rc == 0, again.text
    assert {program.state for program in host.programs()} == {"RUNNING"}
    assert page(host)[0] == 503
    done = play("maintenance", celery_app_maintenance="off")
    assert done.rc == 0, done.text
    wait_until(lambda: page(host)[0] in (200, 202), 30, "the page")
    host.await_consumers(1)
    assert json.loads(host.output(PAUSED)) == []
    entries = [json.loads(line) for line in host.output("tail -n 3 /var/log/petct/deploys.log").splitlines()]
    assert [entry["action"] for entry in entries] == ["maintenance on", "restart", "maintenance off"]


def test_what_is_neither_on_nor_off_is_refused(host):
    done = play("maintenance", celery_app_maintenance="maybe")
    assert done.rc == 2
    assert "celery_app_maintenance is maybe: it has to be on or off" in done.words


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    return Variants(tmp_path_factory.mktemp("variants"))


# It sees what the host is like while it runs.
MIGRATION = "python -c \"import json; open('{seen}', 'w').write(open('/var/lib/petct/pause.json').read())\""


@LONG
def test_a_deploy_that_stops_migrates_while_all_is_closed_and_opens_again(host, variants):
    seen = "/var/lib/petct/seen-by-the-migration"
    source = variants.make("stopping", {"petct/celery.py": "\n# another release\n"})
    done = deployed(
        celery_app_source=str(source), celery_app_deploy="stop", celery_app_migrate_command=MIGRATION.format(seen=seen)
    )
    closed = json.loads(host.output(f"cat {seen}; rm {seen}"))
    assert {one["what"] for one in closed} == {"all", "scheduler", "web"}
    assert {one["by"] for one in closed} == {"deploy"}
    assert json.loads(host.output(PAUSED)) == []
    assert host.task_comes_back(), done.text[-3000:]
    assert page(host)[0] in (200, 202)


@LONG
def test_a_migration_that_fails_leaves_the_previous_programs_open(host):
    before = host.current()
    done = play("deploy", celery_app_deploy="stop", celery_app_migrate_command="python -c 'raise SystemExit(3)'")
    assert done.rc == 2
    assert host.current() == before
    assert json.loads(host.output(PAUSED)) == []
    wait_until(lambda: page(host)[0] in (200, 202), 30, "the page")
    assert host.task_comes_back()
