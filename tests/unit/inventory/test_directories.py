"""The directory of the secrets is closed to others, also while another run makes its first passwords there."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.release_source import is_git
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, Inventory
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import directories
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import source as of_source


def mistakes(directory):
    given = {"celery_app_secrets_dir": str(directory), "celery_app_cache_dir": ""}
    return [mistake.text for mistake in directories(Host("web1", given))]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (".secrets", "Ansible would look for it beside the playbook; it has to begin with / or ~. Write"),
        ("~nobody-of-that-name/secrets", "there is no such user on the control node. Write"),
        ("/" + 300 * "a" + "/secrets", ""),
        ("~/no/such/directory", ""),
    ],
)
def test_a_directory_is_where_ansible_finds_it(given, says):
    assert [says in one for one in mistakes(given)] == ([True] if says else [])


def test_a_source_where_one_may_not_look_is_no_directory():
    source = {"celery_app_source": "/" + 300 * "a"}  # as for one in the home of another user, the system says why
    (text,) = [one.text for one in of_source(Host("web1", source), Inventory([], {}))]
    assert "no such directory on the control node" in text
    assert not is_git("~nobody-of-that-name/shop")


def test_what_another_run_is_making_is_no_open_secret(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "1f2e.ansible_lockfile").touch(0o755)
    (tmp_path / "gone.ansible_lockfile").symlink_to(tmp_path / "nowhere")  # between a listing and a look
    secret = tmp_path / "shop_broker_password"
    secret.touch(0o644)
    assert mistakes(tmp_path) == []
    secret.write_text("x")
    assert [f"others may read {secret}. Type: chmod 600 {secret}" in one for one in mistakes(tmp_path)] == [True]
