"""A secret is in its file on the host, and nowhere else: not even when a deploy fails while everything is shown."""

from __future__ import annotations

import json
import re
import secrets as random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import control
from support.control import EPHEMERAL, ROOT, Run
from support.host import APP, Host

pytestmark = pytest.mark.only_on("trixie")
TOKEN = random.token_hex(20)
INDEX_TOKEN = random.token_hex(20)
HOSTILE = f"""{TOKEN}%(ENV_HOME)s 100% it's "{TOKEN}" ; # $HOME `id` \\{TOKEN} ü"""
PLACES = "/etc /home /opt /root /run /srv /tmp /usr/local /var"


class Observer(threading.Thread):
    """Looks at all processes, the hosts' included (they are containers here), for a token where none belongs."""

    def __init__(self, owner: int) -> None:
        super().__init__(daemon=True)
        self.owner, self.ended = owner, threading.Event()
        self.on_command_lines: set[bytes] = set()
        self.with_others: set[bytes] = set()
        self.with_owner = 0

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                self.look(process)

    def look(self, process: Path) -> None:
        """Look at one process; it may be gone, or closed to us."""
        try:
            command = (process / "cmdline").read_bytes()
            if TOKEN.encode() in command:
                self.on_command_lines.add(command)
            if TOKEN.encode() in (process / "environ").read_bytes():
                if process.stat().st_uid == self.owner:
                    self.with_owner += 1
                else:
                    self.with_others.add(command)
        except OSError:
            pass


@dataclass
class Failure:
    """A deploy that failed after it had written the secrets, run with all that shows more."""

    host: Host
    run: Run
    observer: Observer
    directory: Path
    programs: list

    @property
    def said(self) -> str:
        return self.run.text


def deploy(host: Host, directory: Path, **variables: object) -> Run:
    """Deploy with -vvv and --diff, a fact cache, a log and temporary directories in `directory`."""
    file = directory / "variables.json"
    file.write_text(json.dumps(variables))
    traces = directory / "traces"
    traces.mkdir(exist_ok=True)
    environment = {
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(traces / "facts"),
        "ANSIBLE_LOG_PATH": str(traces / "log"),
        "ANSIBLE_LOCAL_TEMP": str(traces / "tmp"),
        "XDG_CACHE_HOME": str(traces / "cache"),
    }
    command = control.command_of("deploy", host, options=["-vvv", "--diff", "-e", f"@{file}"])
    return control.run(command, environment=environment)


@pytest.fixture(scope="module")
def failure(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failure]:
    directory = tmp_path_factory.mktemp("secrets")
    source = shutil.copytree(
        ROOT / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__", "data", "tests")
    )
    (source / "another_release").touch()
    programs = host.programs()
    observer = Observer(int(host.output(f"id -u {APP}")))
    observer.start()
    try:
        run = deploy(
            host,
            directory,
            celery_app_source=str(source),
            # The virtualenv is there: pip is not started.
            celery_app_install_environment={"PIP_INDEX_URL": f"https://ci:{INDEX_TOKEN}@127.0.0.1:9/simple"},
            celery_app_migrate_command="""python -c "raise RuntimeError('the migration fails')" """,
            celery_app_secrets={
                "PETCT_SECRET_KEY": (EPHEMERAL / "secrets/petct_secret_key").read_text().strip(),
                "CANARY_RANDOM": TOKEN,
                "CANARY_HOSTILE": HOSTILE,
            },
        )
    finally:
        observer.ended.set()
        observer.join()
    yield Failure(host, run, observer, directory, programs)
    host.run(f"grep -l -s {TOKEN} /etc/{APP}/env-* | xargs -r rm")


def holders(failure: Failure) -> list[str]:
    """Files of the host that hold the token, whoever may read them."""
    search = ("docker", "exec", "-i", failure.host.name, "sh", "-c")
    command = f"cat > /dev/shm/token; grep -r -a -l -s -F -f /dev/shm/token {PLACES}; rm /dev/shm/token"
    return subprocess.run((*search, command), input=TOKEN, capture_output=True, text=True).stdout.split()


def test_the_deploy_failed_where_it_should_and_the_old_programs_run_on(failure):
    assert failure.run.rc != 0
    assert "RuntimeError: the migration fails" in failure.said
    assert failure.host.programs() == failure.programs


def test_the_secret_is_in_one_file_that_only_root_and_the_application_read(failure):
    [file] = holders(failure)
    assert re.fullmatch(rf"/etc/{APP}/env-[0-9a-f]{{12}}", file)
    found = failure.host.testinfra.file(file)
    assert (found.user, found.group, found.mode) == ("root", APP, 0o640)
    load = f"CELERY_OPS_ENV_FILE={file} {APP} printenv"
    assert failure.host.output(f"{load} CANARY_HOSTILE") == HOSTILE
    assert failure.host.output(f"{load} CANARY_RANDOM") == TOKEN


def test_the_journal_does_not_know_it(failure):
    journal = failure.host.output("journalctl --no-pager --output cat")
    assert "runuser" in journal  # it was read, and the deploy is in it
    assert TOKEN not in journal


def test_nothing_shown_logged_or_cached_on_the_control_node_holds_it(failure):
    assert "/usr/bin/python3" in failure.said  # -vvv shows the calls
    assert TOKEN not in failure.said
    traces = [path for path in (failure.directory / "traces").rglob("*") if path.is_file()]
    assert [path for path in traces if path.name == "log"]
    assert [path for path in traces if TOKEN.encode() in path.read_bytes()] == []


def test_a_token_of_the_package_index_is_nowhere(failure):
    assert INDEX_TOKEN not in failure.said
    assert INDEX_TOKEN not in failure.host.output("journalctl --no-pager --output cat")
    assert [path for path in (failure.directory / "traces").rglob("*") if path.is_file() and has_token(path)] == []
    found = failure.host.run(f"grep -r -a -l -s -F {INDEX_TOKEN} {PLACES} --exclude-dir journal")
    assert found.stdout == ""


def has_token(path: Path) -> bool:
    return INDEX_TOKEN.encode() in path.read_bytes()


def test_no_process_but_the_applications_own_ever_held_it(failure):
    assert failure.observer.with_owner  # the migration, which is to have it
    assert failure.observer.on_command_lines == set()
    assert failure.observer.with_others == set()


def test_a_secret_with_a_newline_is_refused_and_not_shown(host, tmp_path):
    run = deploy(host, tmp_path, celery_app_secrets={"PETCT_SECRET_KEY": "x", "CANARY": f"{TOKEN}\nLINE=2"})
    assert run.rc != 0
    assert "CANARY" in run.text
    assert "newline" in run.text
    assert TOKEN not in run.text
