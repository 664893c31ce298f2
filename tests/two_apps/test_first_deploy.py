"""A first deploy that fails ends with nothing running, and the next good one is the first. Before the fixture shop."""

import json
import re
import shutil

import pytest
from support.control import ROOT
from support.host import Host
from support.long import LONG

pytestmark = pytest.mark.timeout(900)
DIES = """
from celery.signals import worker_init
@worker_init.connect
def _die(**_):
    raise SystemExit("the shop is closed")
"""


def nothing_runs(run, petct, before, where):
    """What holds after a first deploy of the shop that has failed."""
    assert run.rc != 0
    assert re.search(rf"The deploy of release [0-9a-f]{{12}} failed. - {where} on {petct}", run.words), run.text[-6000:]
    assert f"Nothing runs on {petct}: there was no deployment before." in run.words
    assert petct.running() == before
    assert petct.ask("ls /etc/supervisor/conf.d /run/celery-ops/shop/conf.d | grep ^shop-") == ""
    assert petct.ask("pgrep -u shop -a") == ""
    assert petct.ask("ls -d /srv/shop/current /etc/shop/env") == ""


def test_one_whose_workers_fail_ends_with_nothing_running(petct, inventory, tmp_path):
    before = petct.running()
    assert Host(petct.name, "shop").workers() == {}
    dies = shutil.copytree(ROOT / "tests/apps/shop", tmp_path / "dies")
    (dies / "shop.py").write_text((dies / "shop.py").read_text() + DIES)
    run = inventory.play("site", celery_app_source=str(dies))
    nothing_runs(run, petct, before, "workers")
    assert "the shop is closed" in run.words

    status = inventory.play("status")
    assert status.rc == 2
    assert re.search("shop was not deployed here yet. Deploy: ansible-playbook .*playbooks/site.yml", status.words)
    assert re.search("last: deploy .* failed: workers on ", status.words)


@LONG
def test_one_whose_web_program_fails_does_so_too(petct, inventory):
    before, hosts = petct.running(), inventory.directory / "hosts.yml"
    text = hosts.read_text()
    with_web = json.loads(text)
    with_web["all"]["children"]["web"] = {"hosts": {petct.name: None}}
    hosts.write_text(json.dumps(with_web))
    run = inventory.play("deploy", celery_web_command="false", celery_web_bind="127.0.0.1:8123")
    hosts.write_text(text)
    nothing_runs(run, petct, before, "web")


@LONG
def test_one_whose_check_fails_is_complete(petct, inventory):
    run = inventory.play("site", celery_app_check_command="false")
    assert run.rc != 0 and "celery_app_check_command" in run.words, run.text[-6000:]
    shop = Host(petct.name, "shop")
    assert len(shop.workers()) == 1, "the deploy was complete before the check"
    assert shop.last_deploy()["outcome"] == "good"
