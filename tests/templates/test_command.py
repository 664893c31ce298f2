"""The application's command on its hosts: it runs others in the current release, with its environment."""

from __future__ import annotations

import getpass
import os
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = '#!/bin/sh\necho "$0" "$@" "$GREETING" "$PWD"\n'


@pytest.fixture
def shop(tmp_path, render):
    """The command of an application whose user we are, with two releases of it; the first is current."""
    for name in ("one", "two"):
        release = tmp_path / "releases" / name
        (release / "app").mkdir(parents=True)
        venv.create(release / "venv", with_pip=False)
        loader = f'#!/bin/sh\nPYTHONPATH={ROOT}/runtime exec {release}/venv/bin/python -m celery_ops.cli.env "$@"\n'
        (release / "bin").mkdir()
        for tool, text in (("bin/celery-ops-env", loader), ("venv/bin/celery", TOOL), ("venv/bin/manage", TOOL)):
            (release / tool).write_text(text)
            (release / tool).chmod(0o755)
    (tmp_path / "env").write_text("GREETING='good day'\n")
    variables = {
        "celery_app_name": getpass.getuser(), "celery_app_command": "shop", "celery_app_module": "shop.main:app",
        "__celery_app_base": str(tmp_path), "__celery_app_etc": str(tmp_path),
    }  # fmt: skip
    command = tmp_path / "shop"
    command.write_text(render(ROOT / "roles/celery/templates/command.j2", **variables))
    command.chmod(0o755)

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        found = {**os.environ, **environment}
        return subprocess.run([command, *words], cwd="/", env=found, capture_output=True, text=True, check=False)

    (tmp_path / "current").symlink_to("releases/one")
    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("manage", "a b", "-h"), "manage a b -h"),
        (("celery", "inspect", "active"), "celery -A shop.main:app inspect active"),
    ],
)
def test_it_runs_a_command_of_the_current_release_with_its_environment(shop, tmp_path, words, expected):
    done = shop(*words)
    release = tmp_path / "releases/one"
    assert done.stdout == f"{release}/venv/bin/{expected} good day {release}/app\n", done.stderr


def test_in_a_hook_it_means_the_release_that_is_being_deployed(shop, tmp_path):
    (tmp_path / "new-env").write_text("GREETING=new\n")
    release = tmp_path / "releases/two"
    done = shop("manage", CELERY_OPS_RELEASE=str(release), CELERY_OPS_ENV_FILE=str(tmp_path / "new-env"))
    assert done.stdout == f"{release}/venv/bin/manage new {release}/app\n", done.stderr


def test_it_runs_in_a_release_that_0_1_has_built(shop, tmp_path):
    release = tmp_path / "releases/one"
    (release / "bin/celery-ops-env").rename(release / "venv/bin/celery-ops-env")
    assert shop("manage").stdout == f"{release}/venv/bin/manage good day {release}/app\n"


def test_it_says_what_to_type_where_nothing_was_deployed_yet(shop, tmp_path):
    (tmp_path / "current").unlink()
    done = shop("manage")
    assert done.returncode == 78
    assert "Type on the control node: ansible-playbook playbooks/site.yml" in done.stderr


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_it_explains_itself(shop, words):
    assert "Usage: shop COMMAND..." in shop(*words).stdout
