"""report.yml: the last day, or hour, of a host that works."""

import json

from support.control import play


def test_the_last_hour(host):
    done = play("report", celery_app_report_over="hour")
    assert done.rc == 0 and done.changed == {host.name: 0}, done.text
    assert f"{host.name}, the last " in done.words and "petct-worker-default: memory" in done.words
    assert "2 slots," in done.words and "queue petct:" in done.words


def test_the_last_day(host):
    day = json.loads(host.output("cat /var/lib/petct/metrics/day.json"))
    assert day["every"] == 300 and "petct-worker-default" in day["programs"] and day["times"]
    assert play("report").rc == 0
    assert play("report", celery_app_report_over="week").rc != 0
