"""The state of releases on a host: which is good, which is void, what a rollback and a prune do."""

import json

import deploy_lock
import pytest
import release
import yaml
from release import ReleaseError, Releases

DEFAULTS = {name: option.get("default") for name, option in release.ARGUMENTS.items()}
OPTIONS = {"actor": "anna@control", "action": "deploy", "seconds": {}, "keep": 5, "reason": ""}


@pytest.fixture
def releases(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "CONF_D", tmp_path / "conf.d")
    (tmp_path / "conf.d").mkdir()
    found = Releases("shop", tmp_path / "srv")
    found.environments = tmp_path / "etc"
    found.audit = tmp_path / "log/deploys.log"
    for folder in (found.folder, found.base / "venvs", found.environments):
        folder.mkdir(parents=True)
    return found


def make(releases, name, status="built", venv="v1"):
    folder = releases.folder / name
    (releases.base / "venvs" / venv).mkdir(exist_ok=True)
    folder.mkdir()
    (folder / "venv").symlink_to(f"../../venvs/{venv}")
    releases.write_note(name, status=status, built_at=len(releases.all()))
    return name


def close(releases, name, **changes):
    environment = releases.environments / f"env-{name}"
    environment.touch()
    return release.close(releases, {**OPTIONS, "id": name, "environment_file": str(environment), **changes}, False)


def audit(releases):
    return [json.loads(line) for line in releases.audit.read_text().splitlines()]


def test_closing_makes_a_release_current_and_good(releases):
    close(releases, make(releases, "aaa"))
    assert releases.current() == "aaa"
    assert releases.note("aaa")["status"] == "good"
    assert (releases.environments / "env").resolve().name == "env-aaa"
    assert audit(releases)[0] | {"at": ""} == {
        "at": "", "who": "anna@control", "action": "deploy", "from": "", "to": "aaa", "commit": "",
        "outcome": "good", "seconds": {},
    }  # fmt: skip
    assert close(releases, "aaa")["changed"] is False


def test_prune_keeps_five_good_ones_and_counts_no_failed_ones(releases):
    for number in range(4):
        close(releases, make(releases, f"good{number}"))
    for number in range(6):
        name = make(releases, f"bad{number}")
        release.void(releases, {**OPTIONS, "id": name, "reason": "canary"}, False)
    close(releases, make(releases, "good4"))
    close(releases, make(releases, "good5"))
    assert releases.good() == ["good5", "good4", "good3", "good2", "good1"]
    assert [name for name in releases.all() if name.startswith("bad")] == ["bad5"]


def test_prune_leaves_what_a_program_still_names(releases):
    (release.CONF_D / "shop-worker.conf").write_text(f"command={releases.folder}/good0/venv/bin/celery\n")
    for number in range(8):
        close(releases, make(releases, f"good{number}", venv=f"v{number}"))
    assert "good0" in releases.all()
    assert (releases.base / "venvs/v0").exists()
    assert not (releases.base / "venvs/v1").exists()


def test_rollback_goes_to_the_good_one_before_and_voids_the_one_it_leaves(releases):
    for name in ("one", "two", "three"):
        close(releases, make(releases, name))
    make(releases, "broken", status="void")
    assert release.choose(releases, "")["id"] == "two"
    close(releases, "two", action="rollback")
    assert releases.note("three")["status"] == "void"
    assert release.choose(releases, "")["id"] == "one"
    assert release.choose(releases, "three")["id"] == "three"


def test_the_release_that_was_rolled_back_last_is_kept_for_a_look(releases):
    for name in ("one", "two", "three"):
        close(releases, make(releases, name))
    close(releases, "two", action="rollback")
    close(releases, "one", action="rollback")
    assert set(releases.all()) == {"one", "two"}


def test_rollback_after_a_deploy_that_failed_half_way_goes_to_the_current_one(releases):
    close(releases, make(releases, "one"))
    close(releases, make(releases, "two"))
    make(releases, "three", status="void")
    (release.CONF_D / "shop-worker.conf").write_text(f"command={releases.folder}/three/venv/bin/celery\n")
    assert release.choose(releases, "")["id"] == "two"


def test_rollback_with_nowhere_to_go_says_what_there_is(releases):
    close(releases, make(releases, "one"))
    make(releases, "broken", status="void")
    with pytest.raises(ReleaseError, match=r"no earlier good release.*broken \(void\), one \(good\)"):
        release.choose(releases, "")
    with pytest.raises(ReleaseError, match="celery_app_release is nine: no such release"):
        release.choose(releases, "nine")


def test_a_good_release_that_fails_later_stays_good(releases):
    close(releases, make(releases, "one"))
    release.void(releases, {**OPTIONS, "id": "one", "reason": "settings"}, False)
    assert releases.note("one")["status"] == "good"
    assert audit(releases)[-1]["outcome"] == "failed: settings"


def migrate(releases, check_mode=False, **commands):
    options = {"id": "two", "migrate": [], "seed": [], **commands}
    return release.migrate(releases, options, check_mode)["changed"]


def test_the_first_release_migrates_and_seeds_and_later_ones_migrate(releases, tmp_path):
    commands = {name: ["sh", "-c", f"echo {name} >> {tmp_path}/done"] for name in ("migrate", "seed")}
    assert migrate(releases, check_mode=True, **commands)
    assert not (tmp_path / "done").exists()
    assert migrate(releases, **commands)
    close(releases, make(releases, "one"))
    assert migrate(releases, **commands)
    assert (tmp_path / "done").read_text().split() == ["migrate", "seed", "migrate"]
    assert not migrate(releases)
    close(releases, make(releases, "two"))
    assert not migrate(releases, **commands)


def test_a_migration_that_fails_shows_its_last_words_and_how_to_repeat_it(releases):
    command = ["sh", "-c", "echo no such table >&2; exit 3"]
    with pytest.raises(ReleaseError, match=r"(?s)Migrating \(release two\) failed.*deploy again: sh -c.*no such table"):
        migrate(releases, migrate=command)


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
        "environment_text", "install_environment",
    ]  # fmt: skip
