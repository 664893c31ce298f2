"""Uninstall, planned only, where what has the application's name is somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.control import run_plays

TAKEN = "skel"  # /etc/skel is Debian's, and no user has that name


def test_what_only_has_the_name_of_the_application_stays(tmp_path):
    remove = {"ansible.builtin.import_role": {"name": "celery_ops.kit.celery", "tasks_from": "uninstall"}}
    inventory = {"all": {"hosts": {"db1": {"ansible_connection": "local", "celery_app_name": TAKEN}}}}
    play = {"hosts": "all", "gather_facts": False, "check_mode": True, "tasks": [remove]}
    done = run_plays(tmp_path, [play], inventory)
    assert done.rc == 0, done.text
    assert f"Not from this kit, and stays: /etc/{TAKEN}" in done.words
    assert done.changed == {"db1": 0}, done.text


@pytest.mark.skipif(Path("/usr/bin/prometheus-node-exporter").exists(), reason="it would be restarted")
def test_nothing_of_the_kit_stays_in_the_unit_of_node_exporter(tmp_path):
    """A node-exporter that was there before, or that somebody installs later, would listen on loopback alone."""
    ours, theirs = (tmp_path / f"dropins/{name}.conf" for name in ("celery-ops", "override"))
    ours.parent.mkdir()
    remove = {
        "ansible.builtin.include_role": {"name": "celery_ops.kit.monitoring", "tasks_from": "unconfigure"},
        "vars": {"__monitoring_exporter_dropins": str(ours.parent)},
    }
    inventory = {"all": {"hosts": {"db1": {"ansible_connection": "local"}}}}
    for others in ([theirs], []):
        for path in [ours, *others]:
            path.write_text("[Service]\n")
        done = run_plays(tmp_path, [{"hosts": "all", "gather_facts": False, "tasks": [remove]}], inventory)
        assert done.rc == 0, done.text
        assert not ours.exists() and theirs.exists() is bool(others)
        theirs.unlink(missing_ok=True)
    assert not ours.parent.exists()
    done = run_plays(tmp_path, [{"hosts": "all", "gather_facts": False, "tasks": [remove]}], inventory)
    assert done.changed == {"db1": 0}, done.text


def test_uninstall_removes_the_configuration_of_node_exporter_after_the_packages():
    text = (Path(__file__).resolve().parents[3] / "playbooks/uninstall.yml").read_text()
    packages, configuration = text.index("name: Packages"), text.index("name: Node-exporter's configuration")
    assert packages < configuration
