"""A worker host is removed and added again: broker, results and the programs of the others stay as they are."""

import pytest
from support.control import play
from support.host import APP
from support.wait import wait_until


@pytest.mark.timeout(600)
def test_a_worker_host_goes_and_comes_back(hub, workers):
    stays, goes = workers
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
    added = play("site")
    assert added.rc == 0, added.text[-4000:]
    wait_until(lambda: hub.consumers() == len(workers), 60, "a consumer on each worker host")
    assert goes.current() == hub.current()
    assert stays.workers() == before
