"""Check mode on a host that is set up; before anything is there, the scenario itself runs it."""

from __future__ import annotations

import pytest
from support.control import play


@pytest.mark.only_on("bare")
@pytest.mark.timeout(180)
def test_it_finds_nothing_to_do_and_shows_no_secret(host, secrets):
    run = play("site", host, options=["--check", "--diff", "-vv"])
    assert run.rc == 0, run.text[-6000:]
    assert run.changed == {host.name: 0}
    assert [name for name, value in secrets.items() if value in run.text] == []
