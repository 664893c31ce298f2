"""A rotation of generated passwords on the control node: interrupted anywhere, the next run completes it."""

from __future__ import annotations

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.celery_ops.kit.plugins.action.rotation import refuse_unknown, secrets_of
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import rotation
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import Secrets, is_under_way, old, password_files


@pytest.fixture
def secrets(tmp_path):
    """An application whose passwords were generated and never rotated."""
    (tmp_path / "shop_broker_password").write_text("first-broker\n")
    (tmp_path / "shop_result_store_password").write_text("first-store\n")
    return Secrets(tmp_path, "shop")


def broker(secrets):
    return secrets.directory / "shop_broker_password"


def begin(secrets):
    renewed = [secrets.renew(broker(secrets), of_broker=True)]
    return [*renewed, secrets.renew(secrets.directory / "shop_result_store_password")]


def files(secrets):
    return {path.name: path.read_text() for path in secrets.directory.iterdir()}


def test_new_ones_are_put_in_place_and_the_old_ones_kept_until_the_end(secrets):
    assert begin(secrets) == [True, True]
    assert secrets.user() == "shop-2"
    assert old(broker(secrets)).read_text() == "first-broker\n"
    assert len(broker(secrets).read_text().strip()) == rotation.LENGTH
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secrets.directory.iterdir() if "old" in path.name)
    assert is_under_way(secrets.directory, "shop")
    assert not is_under_way(secrets.directory, "mail")
    assert secrets.forget()
    assert set(files(secrets)) == {"shop_broker_password", "shop_broker_user", "shop_result_store_password"}
    assert not secrets.forget()


def test_a_second_run_begins_no_second_rotation(secrets):
    begin(secrets)
    before = files(secrets)
    assert begin(secrets) == [False, False]
    assert files(secrets) == before


def test_the_secrets_of_other_applications_are_not_said_to_be_left_out(secrets):
    for name in ("mail_broker_password", "shop_two_broker_password", "shop_two_token", "shop_token", "token"):
        (secrets.directory / name).write_text("x")
    assert secrets.left_out == ["shop_token (not of broker or store)", "token (not of broker or store)"]
    assert Secrets(secrets.directory, "shop_two").left_out == [
        "shop_two_token (not of broker or store)", "token (not of broker or store)",
    ]  # fmt: skip


def test_a_directory_in_a_home_is_the_one_that_ansible_makes_passwords_in(secrets, monkeypatch):
    monkeypatch.setenv("HOME", str(secrets.directory))
    begin(secrets)
    assert is_under_way("~", "shop")
    known = {"celery_app_secrets_dir": "~", "celery_app_name": "shop"}
    assert rotation.broker_user(known) == "shop-2"
    assert secrets_of(Host("one", known)).directory == secrets.directory


def test_the_users_alternate(secrets):
    seen = []
    for _ in range(3):
        begin(secrets)
        secrets.forget()
        seen.append(secrets.user())
    assert seen == ["shop-2", "shop", "shop-2"]


@pytest.mark.parametrize("writes", range(5))
def test_killed_between_any_two_writes_it_is_completed(secrets, killed_after, writes):
    with killed_after(rotation, writes):
        begin(secrets)
    begin(secrets)
    assert secrets.user() == "shop-2"
    kept = {name: text for name, text in files(secrets).items() if name.endswith(".old")}
    assert kept == {
        "shop_broker_user.old": "shop\n",
        "shop_broker_password.old": "first-broker\n",
        "shop_result_store_password.old": "first-store\n",
    }
    assert broker(secrets).read_text() != "first-broker\n"


def test_without_a_password_there_is_nothing_to_rotate(tmp_path):
    with pytest.raises(OperatorError, match="Set up first"):
        Secrets(tmp_path, "shop").renew(tmp_path / "shop_broker_password", of_broker=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", rotation.SHARED)
def test_what_the_hosts_log_in_to_each_other_with_is_rotated_like_a_password(secrets, name):
    path = secrets.directory / name
    path.write_text("first\n")
    assert secrets.renew(path)
    assert not secrets.renew(path), "no second one"
    assert len(path.read_text().strip()) == rotation.LENGTH
    assert is_under_way(secrets.directory, "shop")
    assert secrets.forget()
    assert not old(path).exists()


@pytest.mark.parametrize(
    ("renewed", "own", "said"),
    [
        (["/s/a", "/s/ca.crt"], [], "New: /s/a, /s/ca.crt."),
        (["/s/a"], ["celery_app_broker_password"], "New: /s/a. The inventory's own, taken as they are now: celery_app"),
        ([], ["celery_app_broker_password"], "The inventory's own, taken as they are now: celery_app_broker_password."),
        ([], [], "A rotation that was interrupted is continued."),
    ],
)
def test_what_is_said_at_its_beginning(renewed, own, said):
    assert rotation.begun(renewed, own).startswith(said)


def test_what_is_said_at_its_end():
    done = "shop: the secrets are rotated, and the old passwords are refused. Back up /s."
    assert rotation.ended("shop", "/s", []) == done
    left = ["key (not of broker or store)", "more (only shows tasks)"]
    assert rotation.ended("shop", "/s", left) == f"{done} Not rotated (docs/security.md says how): {', '.join(left)}."


def test_what_is_not_rotated_is_named_with_the_reason(secrets):
    begin(secrets)
    assert secrets.left_out == []
    for name in (*rotation.SHARED, "shop_backup_passphrase", "shop_flower_password", "shop_secret_key", ".gitignore"):
        (secrets.directory / name).write_text("x")
    (secrets.directory / "tls").mkdir()
    assert secrets.left_out == [
        "shop_backup_passphrase (opens the backups there are)",
        "shop_flower_password (only shows tasks)",
        "shop_secret_key (not of broker or store)",
    ]
    assert Secrets(secrets.directory / "none", "shop").left_out == []


@pytest.mark.parametrize(
    "lookup",
    [
        "lookup('ansible.builtin.password', kept ~ '/my secrets/shop one', length=24)",
        "lookup('password', kept ~ '/my secrets/shop one length=24 chars=ascii_letters')",
    ],
)
def test_a_password_s_file_is_the_one_that_ansible_writes_also_where_its_path_has_spaces(lookup, tmp_path):
    evaluate = Templar(DataLoader(), {"kept": str(tmp_path)}).template
    [file] = password_files("{{ " + lookup + " }}", evaluate)
    assert not file.exists()
    made = evaluate(trust_as_template("{{ " + lookup + " }}"))
    assert (len(made), file.read_text().split()[0]) == (24, made)


def test_a_new_ca_does_not_sign_while_others_may_not_trust_it(tmp_path):
    with pytest.raises(
        OperatorError, match=r"RabbitMQ: user crm\. .*ca\.crt has both CAs.*celery_app_rotate_trusted=yes"
    ):
        refuse_unknown(["RabbitMQ: user crm"], [tmp_path / "ca.crt"])
    refuse_unknown(["RabbitMQ: user crm"], [])  # it signs already
    refuse_unknown([], [tmp_path / "ca.crt"])
