"""What modules say in check mode that they would change, and that no secret is in it."""

import json

import pytest
from ansible.module_utils import basic
from ansible_collections.celery_ops.kit.plugins.modules import packages, redis_users


@pytest.fixture
def checked(monkeypatch, capsys):
    """Run a module in check mode, and return its answer."""

    def run(module, **arguments):
        known = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": True, "_ansible_diff": True}}
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(known).encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
        with pytest.raises(SystemExit):
            module.main()
        text = capsys.readouterr().out
        assert "cret" not in text
        return json.loads(text)

    return run


def test_a_user_of_redis_is_shown_without_its_password(checked, tmp_path):
    acl = tmp_path / "celery-ops.acl"
    application = {"name": "shop", "password": "sEcret-1", "database": 2}
    acl.write_text(f"user notes on #1\nuser shop {redis_users.rules_of({**application, 'database': 1})}\n")
    said = checked(redis_users, applications=[application], acl_file=str(acl))
    assert said["changed"]
    old, new = ([line for line in said["diff"][side].splitlines() if "user shop" in line] for side in said["diff"])
    assert old[0].startswith("user shop on #(hidden) ~*")
    assert (old[0][-9:], new[0][-9:]) == ("+select|1", "+select|2")
    assert redis_users.rules_of(application).split()[1][1:] not in json.dumps(said)


def test_the_packages_that_are_missing_are_shown(checked):
    said = checked(packages, names=["base-files", "no-such-package"])
    assert (said["changed"], said["packages"]) == (True, ["no-such-package"])
    assert said["diff"] == {"before": "", "after": "no-such-package\n"}
