"""A worker host goes and comes back: the programs of the others stay, and a rollback under load takes it along."""

import re

import pytest
from support.control import deployed, play
from support.host import APP
from support.long import LONG
from support.wait import wait_until


@LONG
@pytest.mark.timeout(900)
def test_a_host_goes_and_comes_back_and_a_rollback_takes_it_along(hub, workers, variants, load):
    first, [stays, goes] = hub.current(), workers
    second = {"celery_app_source": str(variants.make("after-the-rollback"))}
    deployed(**second)
    before = stays.workers()

    refused = play("uninstall", goes, uninstall_confirm="yes", uninstall_services="yes")
    assert refused.rc != 0, "it is a broker of the others, too"
    assert "which --limit leaves out" in refused.words, refused.text[-4000:]
    removed = play("uninstall", goes, uninstall_confirm="yes")
    assert removed.rc == 0, removed.text[-4000:]
    assert "Its tasks and results stay for " in removed.words
    assert goes.ask(f"ls -d /srv/{APP} /etc/{APP} /etc/supervisor/conf.d/{APP}-*") == ""
    wait_until(lambda: hub.consumers() == 1, 60, "the consumers of the host that stays alone")
    assert stays.workers() == before

    added = play("site", **second)
    assert added.rc == 0, added.text[-4000:]
    wait_until(lambda: hub.consumers() == len(workers), 60, "a consumer on each worker host")
    assert stays.workers() == before
    assert goes.current() == hub.current() != first
    assert first not in goes.releases(), "it has never had it"

    with load(75) as said:
        back = play("rollback", **second)
    assert back.rc == 0, back.text[-3000:]
    assert said[0] == 0, said[1][-3000:]
    assert re.search(r"confirmed: 0 lost, 0 doubled,.* 0 of \d+ samples without a consumer", said[1]), said[1][-3000:]
    for host in (hub, *workers):
        assert host.current() == first
    for host in workers:
        wait_until(lambda host=host: len(host.workers()) == 1, 30, f"one worker program on {host}")
        assert first in host.ask(f"cat /etc/supervisor/conf.d/{APP}-worker-*.conf")
