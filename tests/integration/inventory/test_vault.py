"""Single variables in a vault, wherever they stand: each is heard, and none is shown."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

ROOT = Path(__file__).resolve().parents[3]
PASSPHRASE, SECRET = "of the test", "s3cr3t-value"


class Vaulted(str):
    """A text that is written encrypted, as ansible-vault encrypt_string writes it."""


def encrypted(dumper: yaml.SafeDumper, text: Vaulted) -> yaml.ScalarNode:
    secret = VaultLib([("default", VaultSecret(PASSPHRASE.encode()))]).encrypt(str(text)).decode()
    return dumper.represent_scalar("!vault", secret, style="|")


class Dumper(yaml.SafeDumper):
    """YAML with vaulted texts in it."""


Dumper.add_representer(Vaulted, encrypted)

VARIABLES = {
    "celery_app_name": Vaulted("shop"),
    "celery_app_module": "shop",
    "celery_app_source": Vaulted(str(ROOT / "tests/apps/shop")),
    "celery_app_requirements": "pyproject.toml",
    "celery_app_task_time_limit": Vaulted("300"),
    "celery_app_broker_url": Vaulted(f"amqps://shop:{SECRET}@mq.example.com:5671/shop"),
    "celery_app_result_backend": Vaulted(f"redis://:{SECRET}@cache:6379/3"),
    "celery_app_environment": {"PLAIN": Vaulted(SECRET)},
    "celery_app_secrets": {"TOKEN": Vaulted(SECRET)},
    "celery_app_notify": [
        {"webhook": Vaulted(f"https://hooks.example.com/{SECRET}")},
        {"command": Vaulted(f"tell {SECRET}"), "events": ["died"]},
    ],
    "celery_worker_programs": [{"name": Vaulted("mails"), "queues": [Vaulted("mails")]}],
}


def check(directory: Path, inventory: dict, extra: dict) -> str:
    """What the first play of site.yml says, its status first."""
    first = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())[:1]
    (directory / "first.yml").write_text(yaml.safe_dump(first))
    (directory / "hosts.yml").write_text(yaml.dump({"all": inventory}, Dumper=Dumper))
    (directory / "extra.yml").write_text(yaml.dump(extra, Dumper=Dumper))
    (directory / "passphrase").write_text(PASSPHRASE)
    words = ["ansible-playbook", "-i", "hosts.yml", "-e", "@extra.yml", "--vault-password-file", "passphrase"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"}
    words.append("first.yml")
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return f"{done.returncode} {done.stdout}{done.stderr}"


@pytest.mark.parametrize("where", ["inventory", "command line"])
def test_a_vaulted_variable_is_as_good_as_a_plain_one(where, tmp_path):
    here = {"hosts": {"a": {"ansible_connection": "local"}}}
    inventory = {**here, "children": {"worker": {"hosts": {"a": None}}}}
    extra = VARIABLES if where == "command line" else {"somebodys_own": 1}
    said = check(tmp_path, inventory | {"vars": {} if extra is VARIABLES else VARIABLES}, extra)
    assert said.startswith("0 "), said
    assert SECRET not in said


def test_a_vaulted_address_that_is_wrong_is_refused_and_not_shown(tmp_path):
    here = {"hosts": {"a": {"ansible_connection": "local"}}, "children": {"worker": {"hosts": {"a": None}}}}
    said = check(tmp_path, here | {"vars": VARIABLES}, {"celery_app_broker_url": Vaulted(f"redis://:{SECRET}@cache")})
    assert "celery_app_broker_url (not shown) begins with redis://" in said, said
    assert SECRET not in said
