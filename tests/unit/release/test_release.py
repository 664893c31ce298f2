"""The state of releases on a host: what goes live, what a rollback goes back to, and what a prune leaves."""

import json
import os

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.module_utils import virtualenvs
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError
from ansible_collections.celery_ops.kit.plugins.modules import deploy_lock, release
from ansible_collections.celery_ops.kit.plugins.modules.release import Releases

DEFAULTS = {name: option.get("default") for name, option in release.ARGUMENTS.items()}
OPTIONS = {
    "actor": "anna@control", "action": "deploy", "seconds": {}, "keep": 5, "reason": "", "deployment": "",
    "draining": [], "previous": "", "commit": "", "target": "", "release_fault": False, "taken_back": True,
    "migrated": [],
}  # fmt: skip


@pytest.fixture
def releases(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "CONF_D", tmp_path / "conf.d")
    (tmp_path / "conf.d").mkdir()
    found = Releases("shop", tmp_path / "srv")
    found.environments = tmp_path / "etc"
    found.deployments.audit = tmp_path / "log/deploys.log"
    for directory in (found.directory, found.base / "venvs", found.environments):
        directory.mkdir(parents=True)
    return found


def make(releases, name, status="built", venv="v1"):
    directory = releases.directory / name
    (releases.base / "venvs" / venv).mkdir(exist_ok=True)
    directory.mkdir()
    (directory / "venv").symlink_to(f"../../venvs/{venv}")
    releases.write_note(name, status=status, built_at=len(releases.all()))
    return name


def deploy(
    releases, name, deployment="", environment="", programs=("shop-worker-a-00000001",), hands_over=True, **changes
):
    """A deployment of a release that is built, as far as the release module has a part in it."""
    environment = releases.environments / f"env-{environment or name}"
    environment.touch()
    options = {
        **OPTIONS, "id": name, "deployment": deployment or f"d{len(releases.deployments.all())}",
        "environment_file": str(environment), **changes,
    }  # fmt: skip
    before = release.begin(releases, options)["deployment_before"]
    manifest = [
        {"family": one[:-9], "name": one, "conf": f"exec {releases.directory}/{name}/venv\n"} for one in programs
    ]
    releases.deployments.note_programs(["shop-"], manifest, "workers", is_change=hands_over)
    return release.activate(releases, options, False) | {"before": before, "options": options}


def roll_back(releases, deployment, name, **changes):
    options = {**OPTIONS, "action": "rollback", "deployment": deployment, "id": name, "environment_file": "/env-x"}
    return release.activate(releases, options | changes, False)


def audit(releases):
    return [json.loads(line) for line in releases.deployments.audit.read_text().splitlines()]


def test_activating_makes_a_deployment_current_and_its_release_good(releases):
    deploy(releases, make(releases, "aaa"), "one")
    assert releases.current() == "aaa"
    assert releases.note("aaa")["status"] == "good"
    assert (releases.environments / "env").resolve().name == "env-aaa"
    assert releases.deployments.current_id() == "one"
    assert audit(releases)[0] | {"at": ""} == {
        "at": "", "who": "anna@control", "action": "deploy", "deployment": "one", "from": "", "to": "aaa", "commit": "",
        "changed": ["release", "environment", "programs"], "outcome": "good", "seconds": {},
    }  # fmt: skip
    assert deploy(releases, "aaa", "two")["changed"] is False
    assert releases.deployments.current_id() == "one", "the same again is no deployment"


@pytest.mark.parametrize(
    ("now", "then", "refused"),
    [
        ("redis://shop:p%40w@127.0.0.1:6379/0?protocol=2", "redis://shop:new@127.0.0.1:6379/1?protocol=2", True),
        ("redis://shop:p@127.0.0.1:6379/1", "redis://shop:p@127.0.0.1:6379/1?protocol=2", False),
        ("redis://shop:p@127.0.0.1:6379/0", "redis://shop:p@store:6379/1", False),
        ("", "redis://shop:p@127.0.0.1:6379/1", False),
        ("redis://shop:p@127.0.0.1:6379/0", "", False),
        ("disabled", "db+sqlite:////srv/shop/shared/results.sqlite", False),
        ("db+sqlite:////srv/shop/a.sqlite", "db+sqlite:////srv/shop/b.sqlite", False),
        ("redis://own:p@127.0.0.1:6379/0", "redis://own:p@127.0.0.1:6379/1", False),
    ],
)
def test_results_do_not_move_to_another_database_unless_the_inventory_says_so(releases, now, then, refused):
    (releases.environments / "env").write_text(f"A=1\nCELERY_RESULT_BACKEND='{now}'\n" if now else "A=1\n")
    text = f"CELERY_RESULT_BACKEND='{then}'\n" if then else ""
    if not refused:
        release.refuse_to_move_results(releases, text)
        return
    with pytest.raises(ReleaseError, match=r"are in database 0.*Write: celery_app_result_store_database: 0") as problem:
        release.refuse_to_move_results(releases, text)
    assert "p%40w" not in str(problem.value)


def test_a_change_of_programs_alone_is_a_deployment_with_a_line_of_its_own(releases):
    deploy(releases, make(releases, "aaa"), "one")
    deploy(releases, "aaa", "two", programs=("shop-worker-a-00000001", "shop-worker-b-00000001"))
    assert [line["changed"] for line in audit(releases)][1:] == [["programs"]]
    assert releases.deployments.current()["previous"] == "one"


def test_a_rollback_after_a_change_of_settings_restores_the_settings_and_blames_no_release(releases):
    deploy(releases, make(releases, "aaa"), "one", environment="good")
    deploy(releases, "aaa", "two", environment="bad")
    roll_back(releases, "one", "aaa")
    assert (releases.environments / "env").readlink().name == "env-good"
    assert releases.note("aaa")["status"] == "good"
    assert releases.deployments.current_id() == "one"
    assert audit(releases)[-1]["action"] == "rollback"
    assert audit(releases)[-1]["changed"] == ["environment"]


def test_a_rollback_leaves_the_release_it_came_from_good_and_in_place(releases):
    for name in ("one", "two", "three"):
        deploy(releases, make(releases, name), f"d-{name}")
    roll_back(releases, "d-two", "two")
    assert releases.current() == "two"
    assert releases.note("three")["status"] == "good"
    roll_back(releases, "d-one", "one")
    assert releases.current() == "one"
    assert set(releases.all()) == {"one", "two", "three"}


@pytest.mark.parametrize("before", ["earliest", ""])
def test_a_host_without_the_record_gets_one_with_the_same_id_and_past(releases, before):
    """Before the first deployment of all is none: the one that the host comes from is newer."""
    deploy(releases, make(releases, "bbb"), "late")
    make(releases, "aaa")
    draft = {"id": "x", "action": "rollback", "release": "aaa", "target": "early"}
    releases.deployments.begin(draft)
    releases.deployments.note_programs(
        ["shop-"], [{"family": "f", "name": "shop-f", "conf": ""}], "all", is_change=True
    )
    roll_back(releases, "early", "aaa", previous=before, environment_file="/etc/shop/env-new")
    record = releases.deployments.current()
    assert (record["id"], record["previous"], record["environment"]) == ("early", before, "env-new")


@pytest.mark.parametrize("lines", [1, 150])
def test_other_verbs_after_a_deploy_that_failed_do_not_hide_it_from_a_rollback(releases, lines):
    """A second rollback would go one deployment further than was meant."""
    deploy(releases, make(releases, "one"), "d-one")
    make(releases, "two")
    release.fail(releases, {**OPTIONS, "id": "two", "reason": "web on a: dies"}, False)
    for _ in range(lines):
        releases.deployments.append({"action": "exec", "who": "tim", "outcome": "good"})
    assert release.history(releases, OPTIONS, False)["last"]["outcome"] == "failed: web on a: dies; taken back"
    assert releases.deployments.has_failed()


def test_a_failure_that_is_not_the_releases_does_not_mark_it(releases):
    make(releases, "one")
    release.fail(releases, {**OPTIONS, "id": "one", "reason": "web on a: conf.d is full. Make room."}, False)
    assert releases.note("one")["status"] == "built"
    assert audit(releases)[-1]["outcome"] == "failed: web on a: conf.d is full; taken back"
    release.fail(releases, {**OPTIONS, "id": "one", "reason": "dies", "release_fault": True}, False)
    assert releases.note("one")["status"] == "failed"


def test_the_audit_log_names_no_release_that_the_host_never_had(releases):
    deploy(releases, make(releases, "one"), "d-one")
    release.fail(releases, {**OPTIONS, "id": "two", "reason": "release on b: dies"}, False)
    assert (audit(releases)[-1]["from"], audit(releases)[-1]["to"]) == ("one", "")


def test_a_deploy_that_changes_nothing_has_a_line_only_after_one_that_failed(releases):
    deploy(releases, make(releases, "one"), "d-one")

    def same_again():
        done = deploy(releases, "one", "d-again", hands_over=False)
        assert done["changed"] is False
        return [line["outcome"] for line in audit(releases)]

    assert same_again() == ["good"]
    release.fail(releases, {**OPTIONS, "id": "one", "reason": "a network that was away"}, False)
    assert same_again() == ["good", "failed: a network that was away; taken back", "good"]
    assert len(same_again()) == 3


def test_a_good_release_that_fails_later_stays_good(releases):
    deploy(releases, make(releases, "one"))
    release.fail(releases, {**OPTIONS, "id": "one", "reason": "settings", "release_fault": True}, False)
    assert releases.note("one")["status"] == "good"


def test_a_failure_that_is_kept_leaves_the_draft_for_a_rollback(releases):
    deploy(releases, make(releases, "one"), "d-one")
    releases.deployments.begin({"id": "d-two", "action": "deploy"})
    release.fail(releases, {**OPTIONS, "id": "two", "deployment": "d-two", "reason": "x", "taken_back": False}, False)
    assert release.history(releases, OPTIONS, False)["draft"]["failed"] == "x"
    release.fail(releases, {**OPTIONS, "id": "two", "deployment": "d-two", "reason": "x"}, False)
    assert release.history(releases, OPTIONS, False)["draft"] == {}


def test_a_deployment_that_was_activated_here_and_failed_elsewhere_is_withdrawn(releases):
    deploy(releases, make(releases, "one"), "d-one")
    done = deploy(releases, make(releases, "two"), "d-two")
    release.fail(releases, {**done["options"], "reason": "close on b"}, False)
    assert (releases.current(), releases.deployments.current_id()) == ("one", "d-one")
    assert (releases.environments / "env").readlink().name == "env-one"
    assert "d-two" not in releases.deployments.all()


def test_a_deployment_over_again_is_no_step_of_a_rollback(releases):
    deploy(releases, make(releases, "one"), "d-one")
    deploy(releases, make(releases, "two"), "d-two")
    again = deploy(releases, "two", "d-again", programs=("shop-worker-a-00000002",))
    known = release.history(releases, OPTIONS, False)
    assert (known["current"], known["records"]["d-again"]["previous"]) == ("d-again", "d-one")
    release.fail(releases, {**again["options"], "reason": "close on b"}, False)
    assert releases.deployments.current_id() == "d-two"
    deploy(releases, "two", "d-again", programs=("shop-worker-a-00000002",))
    deploy(releases, make(releases, "three"), "d-three")
    assert release.history(releases, OPTIONS, False)["records"]["d-three"]["previous"] == "d-again"


def test_an_activation_that_failed_half_way_leaves_no_link_to_what_does_not_run(releases, monkeypatch):
    deploy(releases, make(releases, "one"), "d-one")

    def fails(deployment):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(releases.deployments, "point", fails)
        deploy(releases, make(releases, "two"), "d-two")
    assert (releases.current(), releases.deployments.current_id()) == ("two", "d-one")
    release.fail(releases, {**OPTIONS, "id": "two", "deployment": "d-two", "reason": "activate on a: full"}, False)
    assert (releases.current(), releases.deployments.current_id()) == ("one", "d-one")
    assert (releases.environments / "env").readlink().name == "env-one"


def test_what_can_not_be_removed_does_not_fail_a_deploy_that_is_live(releases, monkeypatch):
    deploy(releases, make(releases, "one"), "d-one")

    def fails(path):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(release.shutil, "rmtree", fails)
    done = deploy(releases, make(releases, "two"), "d-two", keep=1)
    assert (releases.current(), releases.deployments.current_id()) == ("two", "d-two")
    [warning] = done["warnings"]
    assert "could not be removed: [Errno 1] Operation not permitted" in warning and "releases/one" in warning


def test_prune_keeps_what_the_last_deployments_need_and_one_that_failed(releases):
    for number in range(4):
        deploy(releases, make(releases, f"good{number}"), f"d{number}")
    for number in range(6):
        releases.write_note(make(releases, f"bad{number}"), status="failed", failed_at=100 + number)
    deploy(releases, make(releases, "good4"), "d4")
    deploy(releases, make(releases, "good5"), "d5")
    assert [name for name in releases.all() if name.startswith("good")] == ["good1", "good2", "good3", "good4", "good5"]
    assert [name for name in releases.all() if name.startswith("bad")] == ["bad5"]
    assert {path.name for path in releases.environments.glob("env-*")} == {f"env-good{n}" for n in range(1, 6)}


def test_prune_leaves_what_a_program_still_names(releases):
    (release.CONF_D / "shop-worker.conf").write_text(f"command={releases.directory}/good0/venv/bin/celery\n")
    for number in range(8):
        deploy(releases, make(releases, f"good{number}", venv=f"v{number}"), f"d{number}")
    assert "good0" in releases.all()
    assert (releases.base / "venvs/v0").exists()
    assert not (releases.base / "venvs/v1").exists()


def migrate(releases, *lines, check_mode=False, seed=()):
    options = {
        "id": "two", "migrate": [{"line": line, "words": ["sh", "-c", line]} for line in lines],
        "seed": [["sh", "-c", line] for line in seed],
    }  # fmt: skip
    return release.migrate(releases, options, check_mode)["changed"]


def test_the_first_release_migrates_and_seeds_and_later_ones_migrate(releases, tmp_path):
    line, seed = (f"echo {name} >> {tmp_path}/done" for name in ("migrate", "seed"))
    assert migrate(releases, line, check_mode=True, seed=[seed])
    assert not (tmp_path / "done").exists()
    assert migrate(releases, line, seed=[seed])
    deploy(releases, make(releases, "one"))
    assert migrate(releases, line, seed=[seed])
    assert (tmp_path / "done").read_text().split() == ["migrate", "seed", "migrate"]
    assert not migrate(releases)
    deploy(releases, make(releases, "two"), migrated=[line])
    assert not migrate(releases, line, seed=[seed])


def test_a_command_that_is_added_to_the_release_that_is_current_migrates_once(releases, tmp_path):
    first, added = (f"echo {name} >> {tmp_path}/done" for name in ("first", "added"))
    deploy(releases, make(releases, "two"), "d1")
    for lines in ([first], [first, added]):
        assert migrate(releases, *lines, check_mode=True)
        assert migrate(releases, *lines)
        assert migrate(releases, *lines, check_mode=True), "the deploy may still fail"
        deploy(releases, "two", "d2", hands_over=False, migrated=lines)
        assert audit(releases)[-1]["changed"] == ["migration"]
        assert not migrate(releases, *lines)
        count = len(audit(releases))
        assert not deploy(releases, "two", "d3", hands_over=False, migrated=lines)["changed"]
        assert len(audit(releases)) == count
    assert (tmp_path / "done").read_text().split() == ["first", "added"]
    assert not migrate(releases, added), "nor is one that was taken out missing"


def test_what_an_earlier_version_of_the_kit_has_deployed_does_not_migrate_again(releases):
    deploy(releases, make(releases, "two"))
    note = releases.note("two")
    del note["migrated"]
    release.write_json(releases.directory / "two/release.json", note)
    roll_back(releases, releases.deployments.current_id(), "two")
    count = len(audit(releases))
    assert not migrate(releases, "exit 1")
    assert not deploy(releases, "two", "d2", hands_over=False, migrated=["exit 1"])["changed"]
    assert len(audit(releases)) == count
    assert not migrate(releases, "exit 1")
    with pytest.raises(ReleaseError, match="exit 2"):
        migrate(releases, "exit 1", "exit 2")


def test_a_migration_that_fails_shows_its_last_words_and_how_to_repeat_it(releases):
    with pytest.raises(ReleaseError, match=r"(?s)Migrating \(release two\) failed.*deploy again: sh -c.*no such table"):
        migrate(releases, "echo no such table >&2; exit 3")


@pytest.mark.parametrize("module", [release, deploy_lock], ids=lambda module: module.__name__)
def test_the_options_are_those_that_are_documented(module):
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    told = {
        name: {key: value for key, value in option.items() if key != "description"}
        for name, option in documented.items()
    }
    taken = {
        name: {key: value for key, value in option.items() if key != "no_log"}
        for name, option in module.ARGUMENTS.items()
    }
    assert told == taken


def test_what_may_hold_secrets_is_masked_by_ansible():
    assert [name for name, option in release.ARGUMENTS.items() if option.get("no_log")] == [
        "environment_text", "notify_text", "install_environment",
    ]  # fmt: skip


@pytest.mark.parametrize(("umask", "usable"), [(0o022, True), (0o027, False), (0o077, False)])
def test_a_virtualenv_made_under_a_hardened_umask_is_not_taken_for_a_good_one(umask, usable, tmp_path):
    before = os.umask(umask)
    try:
        (tmp_path / "venv/bin").mkdir(parents=True)
        (tmp_path / "venv/bin/celery").touch(mode=0o777)
        (tmp_path / "venv/lib/python3.11/site-packages/celery").mkdir(parents=True)
    finally:
        os.umask(before)
    assert virtualenvs.is_readable(tmp_path / "venv") is usable


@pytest.mark.parametrize("state", release.ARGUMENTS["state"]["choices"])
def test_a_host_that_was_never_set_up_is_told_what_to_type(state, tmp_path):
    options = {**DEFAULTS, "app": "shop", "base": str(tmp_path / "shop"), "id": "one", "state": state}
    with pytest.raises(ReleaseError, match=r"was not set up on this host.*Type: ansible-playbook playbooks/site.yml"):
        release.act(options, check_mode=False)
    assert not (tmp_path / "shop").exists()
