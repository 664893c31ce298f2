"""A release is named by what is in it, and by nothing else."""

import base64
import contextlib
import functools
import http.server
import importlib.util
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from ansible.errors import AnsibleActionFail

ROOT = Path(__file__).resolve().parents[3]
SPEC = importlib.util.spec_from_file_location("release_source_action", ROOT / "plugins/action/release_source.py")
release_source = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release_source)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "shop"
    (folder / "shop").mkdir(parents=True)
    (folder / "requirements.txt").write_text("celery==5.7.0\n")
    (folder / "shop/__init__.py").write_text("")
    (folder / "shop/tasks.py").write_text("print('hello')\n")
    return folder


@pytest.fixture
def prepare(tmp_path, source):
    def call(**changes):
        arguments = {
            "source": str(source),
            "version": "HEAD",
            "requirements": "requirements.txt",
            "exclude": [".git", "__pycache__", "*.pyc"],
            "runtime": str(ROOT / "runtime"),
            "cache": str(tmp_path / "cache"),
        }
        return release_source.prepare({**arguments, **changes})

    return call


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_same_content_same_id_whatever_the_times(prepare, source):
    first = prepare()
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    (source / "shop/__pycache__").mkdir()
    (source / "shop/__pycache__/tasks.pyc").write_bytes(b"x")
    assert prepare()["id"] == first["id"]


@pytest.mark.parametrize("change", ["content", "name", "mode", "requirements"])
def test_any_change_that_matters_is_another_id(prepare, source, change):
    first = prepare()["id"]
    tasks = source / "shop/tasks.py"
    if change == "content":
        tasks.write_text("print('hello!')\n")
    elif change == "name":
        tasks.rename(source / "shop/jobs.py")
    elif change == "mode":
        tasks.chmod(0o755)
    else:
        (source / "requirements.txt").write_text("celery==5.7.0\nflask\n")
    assert prepare()["id"] != first


def test_archive_holds_the_source_and_nothing_of_its_owner(prepare, source):
    (source / "link").symlink_to("shop/tasks.py")
    with tarfile.open(prepare()["archive"]) as tar:
        entries = {entry.name: entry for entry in tar if not entry.name.endswith(".whl")}
    assert set(entries) == {"app/requirements.txt", "app/shop/__init__.py", "app/shop/tasks.py", "app/link"}
    assert entries["app/link"].issym()
    assert {(entry.uid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, "", 0)}


def test_a_source_packed_again_is_not_the_next_to_be_forgotten(prepare, tmp_path):
    archive = Path(prepare()["archive"])
    os.utime(archive, (1, 1))
    for number in range(25):
        (archive.parent / f"{number}.tar.gz").touch()
        os.utime(archive.parent / f"{number}.tar.gz", (2 + number, 2 + number))
    assert prepare()["archive"] == str(archive)
    release_source.forget_old(archive.parent, keep=20)
    assert archive.exists()


def test_git_branch_tag_and_commit(prepare, source, tmp_path):
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "one")
    git(source, "tag", "v1")
    one = git(source, "rev-parse", "HEAD")
    bare = tmp_path / "shop.git"
    git(tmp_path, "clone", "-q", "--bare", str(source), str(bare))
    first = prepare(source=f"file://{bare}", version="v1")
    assert first["commit"] == one

    (source / "shop/tasks.py").write_text("print('two')\n")
    git(source, "commit", "-qam", "two")
    git(source, "push", "-q", str(bare), "main")
    second = prepare(source=f"file://{bare}", version="main")
    assert second["id"] != first["id"]
    assert prepare(source=f"file://{bare}", version=one)["id"] == first["id"]
    # The same content is the same release, from a folder or from git.
    assert prepare()["id"] == second["id"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "/nonexistent/shop"}, "celery_app_source is /nonexistent/shop: no such folder"),
        ({"requirements": "lock.txt"}, "set celery_app_requirements: requirements.txt"),
        ({"source": "file:///nonexistent/shop.git"}, "celery_app_source and celery_app_version"),
    ],
)
def test_what_is_wrong_is_named(prepare, changes, words):
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(**changes)


def test_an_empty_folder_is_refused(prepare, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnsibleActionFail, match="not a file in it"):
        prepare(source=str(tmp_path / "empty"))


def test_a_version_that_is_not_there_is_named(prepare, source, tmp_path):
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "one")
    with pytest.raises(AnsibleActionFail, match="celery_app_version"):
        prepare(source=f"file://{source}", version="v9")


TOKEN = "t0ken-of-the-ci%2Fx"
"""As it stands in an address; the server wants t0ken-of-the-ci/x."""


class Repository(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to whoever has the token, and looks who holds it on its command line meanwhile."""

    logins: ClassVar[set[str]] = set()
    seen: ClassVar[set[bytes]] = set()

    def do_GET(self):
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = process.read_bytes()
                self.seen |= {line} if b"t0ken" in line else set()
        kind, _, login = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic" and base64.b64decode(login).decode() in self.logins:
            super().do_GET()
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic realm=git")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(source, tmp_path):
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", "--bare", str(source), "www/shop.git")
    git(tmp_path / "www/shop.git", "update-server-info")
    Repository.logins, Repository.seen = {"ci:t0ken-of-the-ci/x", "t0ken-of-the-ci/x:"}, set()
    handler = functools.partial(Repository, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_address[1]}"
        found.shutdown()


def holders(folder):
    return [path for path in folder.rglob("*") if path.is_file() and b"t0ken" in path.read_bytes()]


@pytest.mark.parametrize("login", [f"ci:{TOKEN}", TOKEN])
def test_a_token_in_the_address_is_on_no_command_line_in_no_file_and_in_no_answer(login, prepare, server, tmp_path):
    for _ in ("cloned", "fetched"):
        answer = prepare(source=f"http://{login}@{server}/shop.git", version="main")
        assert answer["source"] == f"http://{server}/shop.git"
        assert "t0ken" not in str(answer)
    assert Repository.seen == set()
    assert holders(tmp_path / "cache") == []


def test_a_token_that_is_refused_is_not_shown(prepare, server):
    Repository.logins = set()
    with pytest.raises(AnsibleActionFail) as caught:
        prepare(source=f"http://ci:{TOKEN}@{server}/shop.git")
    assert "git clone failed" in str(caught.value)
    assert "t0ken" not in str(caught.value)
    assert Repository.seen == set()


def test_a_mirror_that_an_earlier_version_made_with_the_token_goes(prepare, server, tmp_path):
    old = tmp_path / "cache/git-0123456789abcdef"
    git(tmp_path, "clone", "-q", "--mirror", "www/shop.git", str(old))
    git(old, "config", "remote.origin.url", f"http://ci:{TOKEN}@{server}/shop.git")
    prepare(source=f"http://ci:{TOKEN}@{server}/shop.git", version="main")
    assert not old.exists()
