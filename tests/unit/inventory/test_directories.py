"""The directory of the secrets is closed to others, also while another run makes its first passwords there."""

from __future__ import annotations

from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import directories


def mistakes(directory):
    given = {"celery_app_secrets_dir": str(directory), "celery_app_cache_dir": ""}
    return [mistake.text for mistake in directories(Host("web1", given))]


def test_what_another_run_is_making_is_no_open_secret(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "1f2e.ansible_lockfile").touch(0o755)
    (tmp_path / "gone.ansible_lockfile").symlink_to(tmp_path / "nowhere")  # between a listing and a look
    secret = tmp_path / "shop_broker_password"
    secret.touch(0o644)
    assert mistakes(tmp_path) == []
    secret.write_text("x")
    assert [f"others may read {secret}. Type: chmod 600 {secret}" in one for one in mistakes(tmp_path)] == [True]
