"""The state of releases on a host: which is good, which is void, what a rollback and a prune do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import deploy_lock
import pytest
import release
import yaml
from release import ReleaseError, Releases

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


def test_pyproject_dependencies_are_what_is_installed(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["celery", "flask>=3"]\n')
    assert release.requirement_lines(tmp_path, "pyproject.toml") == "celery\nflask>=3\n"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\ndynamic = ["dependencies"]\n')
    with pytest.raises(ReleaseError, match="dynamic"):
        release.requirement_lines(tmp_path, "pyproject.toml")


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


def test_a_host_that_is_alone_migrates_when_it_has_built(releases, tmp_path):
    make(releases, "two")
    given = {"app": "shop", "base": str(releases.base), "id": "two", "python": sys.executable}
    options = release.options_of({**given, "migrate": ["sh", "-c", f"echo done >> {tmp_path}/done"]})
    assert release.act(options, True)["changed"]
    assert release.act(options, False)["changed"]
    close(releases, "two")
    assert not release.act(options, False)["changed"]
    assert (tmp_path / "done").read_text().split() == ["done"]


def test_a_migration_that_fails_shows_its_last_words_and_how_to_repeat_it(releases):
    command = ["sh", "-c", "echo no such table >&2; exit 3"]
    with pytest.raises(ReleaseError, match=r"(?s)Migrating \(release two\) failed.*deploy again: sh -c.*no such table"):
        migrate(releases, migrate=command)


def test_the_options_are_those_that_are_documented():
    documented = yaml.safe_load(release.DOCUMENTATION)["options"]
    assert set(documented) == {*release.DEFAULTS, "app"}
    told = {name: option["default"] for name, option in documented.items() if "default" in option}
    assert told.items() <= release.DEFAULTS.items()


def test_an_option_that_is_unknown_is_refused():
    assert release.options_of({"app": "shop", "base": None, "keep": "7", "_ansible_check_mode": False}) == {
        **release.DEFAULTS, "app": "shop", "base": "/srv/shop", "keep": 7,
    }  # fmt: skip
    for arguments in ({"app": "shop", "sate": "built"}, {"state": "built"}):
        with pytest.raises(ReleaseError):
            release.options_of(arguments)


HOSTILE = ['"""', "'''", '""', "\\", '\\"', "a\nb", "", "é €", "{{ x }}", "\x00"]


@pytest.mark.parametrize("module", [release, deploy_lock], ids=lambda module: module.__name__)
def test_arguments_arrive_as_they_are_whatever_is_in_them(module):
    arguments = {"id": HOSTILE, "nested": {text: text for text in HOSTILE}}
    # What Ansible puts in that place.
    text = Path(module.__file__).read_text().replace("<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>", json.dumps(arguments))
    program = text.replace('if __name__ == "__main__":\n    main()', "print(ARGUMENTS)")
    said = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == arguments


@pytest.mark.parametrize(("umask", "usable"), [(0o022, True), (0o027, False), (0o077, False)])
def test_a_virtualenv_made_under_a_hardened_umask_is_not_taken_for_a_good_one(umask, usable, tmp_path):
    before = os.umask(umask)
    try:
        (tmp_path / "venv/bin").mkdir(parents=True)
        (tmp_path / "venv/bin/celery").touch(mode=0o777)
        (tmp_path / "venv/lib/python3.11/site-packages/celery_ops").mkdir(parents=True)
    finally:
        os.umask(before)
    assert release.is_readable(tmp_path / "venv") is usable
