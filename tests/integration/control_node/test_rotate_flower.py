"""A rotation of secrets gives Flower the broker's CA, where Flower is installed."""

from __future__ import annotations

import pytest
from support.control import run_plays


@pytest.mark.parametrize("is_installed", [True, False])
def test_flower_trusts_what_the_programs_trust(tmp_path, is_installed):
    there = tmp_path / "flower-shop"
    if is_installed:
        there.mkdir()
        (there / "ca.pem").write_text("the former CA\n")
    (tmp_path / "ca.crt").write_text("both CAs\n")
    role = {"name": "celery_ops.kit.flower", "tasks_from": "authority"}
    given = {"flower_application": "shop", "flower_broker_ca": str(tmp_path / "ca.crt"), "__flower_etc": str(there)}
    task = {"name": "Authority", "ansible.builtin.include_role": role, "vars": given}
    play = {"hosts": "all", "gather_facts": False, "tasks": [task]}
    done = run_plays(tmp_path, [play], {"all": {"hosts": {"here": {"ansible_connection": "local"}}}})
    assert done.rc == 0, done.text
    assert there.exists() == is_installed
    if is_installed:
        assert (there / "ca.pem").read_text() == "both CAs\n"
