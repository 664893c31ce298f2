"""A release is named by what is in it, and by nothing else."""

import base64
import contextlib
import functools
import http.server
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.celery_ops.kit.plugins.action import release_source
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.source_files import files_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "shop"
    (directory / "shop").mkdir(parents=True)
    (directory / "requirements.txt").write_text("celery==5.7.0\n")
    (directory / "shop/__init__.py").write_text("")
    (directory / "shop/tasks.py").write_text("print('hello')\n")
    return directory


@pytest.fixture
def prepare(tmp_path, source):
    def call(**changes):
        arguments = {
            "source": str(source),
            "version": "HEAD",
            "requirements": "requirements.txt",
            "exclude": [],
            "runtime": str(ROOT / "runtime"),
            "cache": str(tmp_path / "cache"),
        }
        return release_source.prepare({**arguments, **changes})

    return call


def git(directory, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *words], cwd=directory, check=True, capture_output=True, text=True
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
        entries = {entry.name: entry for entry in tar if not entry.name.startswith("runtime/")}
    assert set(entries) == {"app/requirements.txt", "app/shop/__init__.py", "app/shop/tasks.py", "app/link"}
    assert entries["app/link"].issym()
    assert {(entry.uid, entry.uname, entry.mtime) for entry in entries.values()} == {(0, "", 0)}


def test_the_runtime_travels_along_as_source_and_is_part_of_the_id(prepare, tmp_path):
    first = prepare()
    with tarfile.open(first["archive"]) as tar:
        entries = {entry.name: entry for entry in tar if entry.name.startswith("runtime/")}
    assert {"runtime/celery_ops/settings.py", "runtime/celery_ops/cli/guard.py"} <= set(entries)
    assert entries["runtime/celery_ops/layout.py"].isreg(), "in the kit it is a link"
    assert all(name.endswith(".py") for name in entries)
    changed = shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    assert prepare(runtime=str(changed))["id"] == first["id"]
    (changed / "celery_ops/cli/check.py").write_text("# changed\n")
    assert prepare(runtime=str(changed))["id"] != first["id"]
    assert prepare(runtime=str(changed))["listener"] == first["listener"]


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
    # The same content is the same release, from a directory or from git.
    assert prepare()["id"] == second["id"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "/nonexistent/shop"}, "celery_app_source is /nonexistent/shop: no such directory"),
        ({"requirements": "lock.txt"}, r"There is requirements.txt. Write: celery_app_requirements: requirements.txt"),
        ({"source": "file:///nonexistent/shop.git"}, "celery_app_source and celery_app_version"),
    ],
)
def test_what_is_wrong_is_named(prepare, changes, words):
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(**changes)


def test_a_control_node_without_git_is_told_so(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        AnsibleActionFail, match=r"is https://git.example/x.git, and git is not on the control node.*apt"
    ):
        prepare(source="https://git.example/x.git")
    assert prepare()["id"], "a directory needs none"


@pytest.mark.parametrize("called", ["plain", "shop.git"])
def test_a_repository_without_a_working_copy_is_known_wherever_it_is(prepare, source, tmp_path, monkeypatch, called):
    commit(source)
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        git(tmp_path, "clone", "-q", "--bare", str(source), str(tmp_path / place / called))
        monkeypatch.chdir(tmp_path / place)
        assert prepare(source=f"./{called}")["commit"] == git(source, "rev-parse", "HEAD")
        write(source, f"shop/{place}.py")
        commit(source)
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    assert "shop/here.py" not in packed(prepare(source=f"~/{called}"))


def test_the_default_branch_is_the_one_that_the_repository_has_now(prepare, source):
    commit(source)
    first = prepare(source=f"file://{source}")
    git(source, "checkout", "-q", "-b", "trunk")
    write(source, "new.py")
    commit(source)
    assert prepare(source=f"file://{source}")["id"] != first["id"]
    git(source, "checkout", "-q", "--detach", "HEAD~1")
    assert prepare(source=f"file://{source}")["id"] == first["id"]


@pytest.mark.parametrize(
    ("version", "write_this"), [("origin/main", "main"), ("maim", "main"), ("v1.0", "v1"), ("HEAD", "main")]
)
def test_a_version_that_is_not_there_is_named_with_those_that_are(prepare, source, version, write_this):
    commit(source)
    git(source, "tag", "v1")
    git(source, "symbolic-ref", "HEAD", "refs/heads/other")
    words = rf"celery_app_version is {version}: .*Available: main, v1\. Write: celery_app_version: {write_this}$"
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(source=f"file://{source}", version=version)


def test_a_run_that_was_killed_leaves_no_copy_that_the_next_one_stumbles_over(prepare, source, tmp_path):
    commit(source)
    mirror = release_source.mirror_of(release_source.Address(f"file://{source}"), tmp_path / "cache")
    half = mirror.with_name(f"{mirror.name}.half")
    half.mkdir(parents=True)
    (half / "HEAD").write_text("")
    first = prepare(source=f"file://{source}")
    (mirror / "index.lock").write_text("")
    assert prepare(source=f"file://{source}") == first
    (mirror / "HEAD").unlink()
    with pytest.raises(AnsibleActionFail, match=rf"copy of the repository is damaged. Type: rm -r {mirror};"):
        prepare(source=f"file://{source}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("requirements-dev.txt requirements/base.txt requirements/prod.txt", "Write: .*: requirements/prod.txt"),
        ("reqs.txt dev-requirements.in", "There is reqs.txt. Write: celery_app_requirements: reqs.txt"),
        ("setup.py", "Write a file requirements.txt with the line: -e ."),
        ("Pipfile Pipfile.lock", "pipenv requirements > requirements.txt"),
        ("README", "Write a file requirements.txt with what pip is to install"),
    ],
)
def test_what_there_is_instead_of_the_requirements_is_named(prepare, tmp_path, files, words):
    write(tmp_path / "other/services/api", *files.split())
    for changes in ({"source": str(tmp_path / "other/services/api")}, {"directory": "services/api"}):
        with pytest.raises(AnsibleActionFail, match=words):
            prepare(**{"source": str(tmp_path / "other"), **changes})


@pytest.mark.parametrize("name", ["Pipfile.lock", "setup.cfg", "deploy/environment.yml", "pylock.prod.toml"])
def test_a_file_that_pip_would_misread_is_refused_with_what_to_type(prepare, source, name):
    write(source, name)
    words = rf"is {name}: pip reads no requirements from it.*requirements.txt.*write: celery_app_requirements: requir"
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(requirements=name)


def test_an_empty_directory_is_refused(prepare, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnsibleActionFail, match="no files to release"):
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
    """Serves a directory to whoever has the token, and looks who holds it on its command line meanwhile."""

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


def holders(directory):
    return [path for path in directory.rglob("*") if path.is_file() and b"t0ken" in path.read_bytes()]


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


def packed(answer):
    """The files of a release, by name."""
    with tarfile.open(answer["archive"]) as tar:
        return {entry.name.removeprefix("app/"): entry for entry in tar if not entry.name.startswith("runtime/")}


def write(directory, *names, text=""):
    """Write files below a directory."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def commit(directory):
    """Commit all that is there."""
    if not (directory / ".git").exists():
        git(directory, "init", "-q", "-b", "main")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "one")


def test_a_pattern_is_anchored_at_the_source(prepare, source):
    write(source, "data/a", "shop/data/a", "shop/notes.txt", "notes.txt", "requirements.in")
    names = packed(prepare(exclude=["data", "*.txt", "**/tasks.py"], requirements="requirements.in"))
    assert set(names) == {"shop/data/a", "shop/notes.txt", "shop/__init__.py", "requirements.in"}


def test_what_is_in_git_is_in_the_release_from_the_repository_and_from_its_working_copy(prepare, source):
    wanted = {
        "data/a",
        "venv/b",
        "x.sqlite3",
        "node_modules/c",
        "shop/__init__.py",
        "shop/tasks.py",
        "requirements.txt",
    }
    write(source, *(wanted - {"requirements.txt"}))
    commit(source)
    assert set(packed(prepare(source=f"file://{source}"))) == wanted
    write(source, "db.sqlite3", ".venv/x", "shop/__pycache__/x.pyc", "new.py")
    assert set(packed(prepare())) == wanted | {"new.py"}


def test_a_repository_without_a_commit_and_a_directory_that_its_repository_ignores(prepare, source):
    write(source, ".gitignore", text=".env\nbuild/\n")
    write(source, ".env", "build/requirements.txt", "build/shop.py", "caf\udce9.py")
    git(source, "init", "-q", "-b", "main")
    names = set(packed(prepare()))
    assert {".gitignore", "shop/tasks.py", "caf\udce9.py"} <= names and {".env", "build/shop.py"}.isdisjoint(names)
    assert set(packed(prepare(source=str(source / "build")))) == {"requirements.txt", "shop.py"}


@pytest.mark.parametrize("in_git", [True, False])
def test_what_git_ignores_and_what_is_no_file_is_left_out_and_said(prepare, source, in_git):
    (source / ".gitignore").write_text(".env\nmedia/\n__pycache__/\n")
    if in_git:
        commit(source)
    write(source, ".env", "media/a", "shop/__pycache__/x.pyc", "server.key")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "run.sock"))
        answer = prepare()
    names = packed(answer)
    assert {"pipe", "run.sock", "shop/__pycache__/x.pyc"}.isdisjoint(names)
    assert {".env", "media/a"}.isdisjoint(names) is in_git
    ignored, special = "2 (git ignores it): .env, media/", "2 (no regular file): pipe, run.sock"
    assert answer["left_out"] == [ignored if in_git else special], "git does not know of special files"
    assert names["server.key"].mode == 0o640, "a key is for root and the application"


@pytest.mark.parametrize(
    ("name", "private"),
    [
        *((name, True) for name in (".env", ".env.production", "prod.env", "tls/server.key", "id_ed25519", "a.log")),
        *((name, False) for name in (".env.example", "environment.py", "keys.py", "logs.py", "id.py")),
    ],
)
def test_names_of_secrets_keys_and_logs(name, private):
    assert release_source.is_private(name) is private


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_requirements_are_read_in_the_encodings_that_pip_reads(prepare, source, encoding):
    text = "# für alle\r\n-r base.txt\r\nx @ https://ci:token@i/x.whl\r\n"
    (source / "requirements.txt").write_bytes(text.encode(encoding))
    with pytest.raises(AnsibleActionFail, match=r"requirements.txt names base.txt: No such file"):
        prepare()
    write(source, "base.txt", text="celery\n")
    assert packed(prepare())["requirements.txt"].mode == 0o640


def test_a_file_with_a_space_in_its_name_is_included(prepare, source):
    write(source, "requirements.txt", text="-r 'base file.txt'\n-c \"pins 1.txt\"\n")
    with pytest.raises(AnsibleActionFail, match=r"requirements.txt names base file.txt: No such file"):
        prepare()
    for name in ("base file.txt", "pins 1.txt"):
        write(source, name)
    assert prepare()["id"]


def test_a_project_file_that_is_no_utf_8_is_named(prepare, source):
    (source / "pyproject.toml").write_bytes('[project]\nname = "für"\n'.encode("latin-1"))
    with pytest.raises(AnsibleActionFail, match=r"celery_app_requirements: pyproject.toml: 'utf-8' codec"):
        prepare(requirements="pyproject.toml")


@pytest.mark.parametrize(
    ("requirements", "private"),
    [
        ("requirements.txt", {"requirements.txt", "libs/base.txt"}),
        ("pyproject.toml", {"pyproject.toml", "../requirements.txt"}),
    ],
)
def test_requirements_with_a_token_are_for_root_and_the_application_only(prepare, source, requirements, private):
    write(source, "requirements.txt", text="--extra-index-url https://ci:token@i/simple\n-r libs/base.txt\n-r c.txt\n")
    write(source, "libs/base.txt", text="x @ git+https://token@git.example/x.git\n")
    write(source, "c.txt", text="celery @ git+ssh://git@git.example/celery.git # https://github.com/celery/celery\n")
    write(source, "pyproject.toml", text='[project]\nname="x"\ndependencies = ["x @ https://token@git.example/x"]\n')
    with tarfile.open(prepare(requirements=requirements)["archive"]) as tar:
        found = {os.path.relpath(one.name, "app") for one in tar if one.mode == 0o640}
    assert found == private


@pytest.fixture
def library(tmp_path):
    """A repository that others have as a submodule."""
    directory = tmp_path / "www/money"
    write(directory, "money.py")
    commit(directory)
    return directory


def with_submodule(source, library):
    """A repository with it at libs/money."""
    git(source, "init", "-q", "-b", "main")
    git(source, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{library}", "libs/money")
    commit(source)


@pytest.mark.parametrize("url", ["", "../www/money"])
def test_submodules_are_fetched_with_the_repository(prepare, source, library, url):
    with_submodule(source, library)
    if url:
        git(source, "config", "-f", ".gitmodules", "submodule.libs/money.url", url)
        commit(source)
    answer = prepare(source=f"file://{source}")
    assert "libs/money/money.py" in packed(answer)
    assert answer["id"] == prepare()["id"], "the working copy has them as well"


def test_a_submodule_that_is_not_there_is_refused_by_name(prepare, source, library, tmp_path):
    with_submodule(source, library)
    git(tmp_path, "clone", "-q", str(source), str(tmp_path / "copy"))
    with pytest.raises(AnsibleActionFail, match=r"libs/money is a git submodule that was not fetched.*update --init"):
        prepare(source=str(tmp_path / "copy"))
    library.rename(library.with_name("gone"))
    with pytest.raises(AnsibleActionFail, match=r"The submodule libs/money of file://.*git clone failed"):
        prepare(source=f"file://{source}")
    git(source, "rm", "-q", "--cached", ".gitmodules")
    git(source, "commit", "-qm", "lost")
    with pytest.raises(AnsibleActionFail, match=r"libs/money is a git submodule of .*Correct \.gitmodules"):
        prepare(source=f"file://{source}")


def test_a_submodule_that_was_not_fetched_is_refused_though_something_is_in_its_directory(prepare, source, library):
    with_submodule(source, library)
    git(source, "submodule", "deinit", "-q", "-f", "libs/money")
    write(source, "libs/money/left.py")
    with pytest.raises(AnsibleActionFail, match="libs/money is a git submodule that was not fetched"):
        prepare()


def test_a_submodules_commit_that_was_not_pushed_is_named(prepare, source, library):
    with_submodule(source, library)
    write(source, "libs/money/local.py")
    commit(source / "libs/money")
    commit(source)
    words = r"submodule libs/money of .* does not have its commit [0-9a-f]{12}\. Type, in libs/money .*: git push"
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(source=f"file://{source}")


def test_what_a_working_copy_lacks_and_what_links_lead_to_is_said(prepare, source):
    (source / "there").symlink_to("shop/../shop/tasks.py")
    (source / "shop/up").symlink_to("../requirements.txt")
    (source / "data").symlink_to("/srv/data")
    (source / "shop/beside").symlink_to("../../beside")
    write(source, "big/a.py")
    commit(source)
    git(source, "sparse-checkout", "set", "shop")
    assert prepare()["left_out"] == [
        "1 (in git, but not in the working copy): big/a.py",
        "2 (what a link out of the source leads to): data, shop/beside",
    ]


def test_a_file_that_a_directory_has_replaced_is_no_submodule(prepare, source):
    write(source, "settings")
    commit(source)
    (source / "settings").unlink()
    write(source, "settings/base.py")
    answer = prepare()
    assert answer["left_out"] == ["1 (a file in git, a directory in the working copy): settings"]
    assert "settings/base.py" in packed(answer)


@pytest.mark.parametrize("in_git", [True, False])
@pytest.mark.parametrize("closed", ["shop/secret", "shop/secret/key.txt"])
def test_what_the_user_may_not_read_is_refused_by_name_and_not_dropped(monkeypatch, in_git, closed):
    words = (
        rf"may not read {closed}/?\. Type: chmod -R a\+rX .*/{closed}\. Or .*celery_app_source_exclude: \[{closed}\]"
    )
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        monkeypatch.setenv("HOME", name)  # root's has a configuration of git that this user may not read
        write(top, "shop/secret/key.txt", "shop/tasks.py")
        if in_git:
            git(top, "init", "-q")
        (top / closed).chmod(0)
        with without_rights_of_root():
            with pytest.raises(OperatorError, match=words):
                files_of(top, [])
            assert files_of(top, [closed]).names == ["shop/tasks.py"]


@contextlib.contextmanager
def without_rights_of_root():
    """Root may read everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_attributes_that_are_a_link_to_nowhere_are_no_reason_to_end(prepare, source):
    (source / ".gitattributes").symlink_to("nowhere")
    assert ".gitattributes" in packed(prepare())


@pytest.mark.parametrize("of_git", ["gitdir: /nowhere/.git/worktrees/shop", ""])
def test_a_working_copy_that_git_can_not_read_is_refused(prepare, source, of_git):
    write(source, ".gitignore", text="*.secret\n")
    write(source, "shop.secret")
    commit(source)
    if of_git:  # a worktree, mounted without its repository
        shutil.rmtree(source / ".git")
        write(source, ".git", text=of_git)
    else:
        (source / ".git/index").write_bytes(b"half")
    with pytest.raises(AnsibleActionFail, match=r"git can't list its files.*: (fatal|error): .*\nLook: git -C "):
        prepare()


def test_a_working_copy_needs_git_and_another_directory_does_not(prepare, source, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert prepare()["id"]
    (source / ".git").mkdir()
    with pytest.raises(AnsibleActionFail, match=r"a working copy of git, and git is not.*apt-get install git"):
        prepare()


def test_a_file_of_git_lfs_that_was_not_fetched_is_refused_by_name(prepare, source):
    write(source, ".gitattributes", text="*.bin filter=lfs\n")
    write(source, "model.bin", text="\0 a model")
    prepare()
    write(source, "model.bin", text="version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(AnsibleActionFail, match=r"model.bin is kept by Git LFS and was not fetched.*git lfs pull"):
        prepare()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("git@git.example: Permission denied (publickey).", "accepts no key of the user who runs.*ssh-add"),
        ("Host key verification failed.", "ssh-keyscan git.example >> ~/.ssh/known_hosts"),
        (
            "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.",
            "ssh-keygen -R git.example;",
        ),
        ("Connection timed out", "needs read access to the repository"),
    ],
)
def test_a_private_repository_by_ssh_never_asks_and_says_what_to_do(prepare, tmp_path, monkeypatch, said, words):
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\necho "{said}" >&2\nexit 255\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(source="git@git.example:acme/acme.git")
    assert "-o BatchMode=yes" in (tmp_path / "words").read_text()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Permission denied (publickey)", "Look: ssh -o BatchMode=yes -p 2222 deploy@git.example"),
        ("Host key verification failed.", r"git\.example\. .*ssh-keyscan -p 2222 git.example"),
        ("REMOTE HOST IDENTIFICATION HAS CHANGED!", r"ssh-keygen -R '\[git.example\]:2222'; ssh-keyscan -p 2222 git"),
    ],
)
def test_what_to_type_has_the_port_and_the_user_of_the_address(said, words):
    assert re.search(words, release_source.what_to_do(said, "ssh://deploy@git.example:2222/acme/acme.git"))


@pytest.mark.parametrize("by", ["configuration", "GIT_SSH"])
def test_the_ssh_that_git_is_told_of_is_used(prepare, tmp_path, monkeypatch, by):
    ssh = tmp_path / "my ssh"
    ssh.write_text("#!/bin/sh\necho my own >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    if by == "GIT_SSH":
        monkeypatch.setenv("GIT_SSH", str(ssh))
    else:
        git(tmp_path, "config", "--global", "core.sshCommand", f"'{ssh}' -i key")
    for address in ("git@git.example:acme/acme.git", "git.example:acme/acme"):
        with pytest.raises(AnsibleActionFail, match="my own"):
            prepare(source=address)


def test_a_file_in_git_may_have_a_name_of_any_bytes(prepare, source):
    name = os.fsdecode(b"shop/caf\xe9.txt")
    write(source, name)
    git(source, "init", "-q")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "1")
    assert name in packed(prepare(source=f"{source}/.git"))


def test_a_directory_of_the_source_is_the_application_and_all_of_the_source_is_there(prepare, source):
    write(source, "libs/money.py")
    write(source, "shop/requirements.txt", text="-r ../requirements.txt\n")
    answer = prepare(directory="shop/")
    names = packed(answer)
    assert names["app"].linkname == "source/shop"
    assert {"source/libs/money.py", "source/shop/tasks.py", "source/requirements.txt"} <= set(names)
    assert answer["id"] != prepare()["id"]


@pytest.mark.parametrize(
    ("changes", "files", "words"),
    [
        ({"directory": "services"}, {}, "celery_app_directory is services: no such directory in .*Available: shop"),
        ({"directory": "shop"}, {}, "celery_app_requirements is requirements.txt: no such file in .*/shop"),
        (
            {},
            {"requirements.txt": "-r base.txt\n"},
            "requirements.txt names base.txt: No such file.*Add it to the source",
        ),
        ({}, {"requirements.txt": "-r ../base.txt\n"}, "requirements.txt names .*outside of the source"),
        ({"exclude": ["base.txt"]}, {"requirements.txt": "-cbase.txt\n", "base.txt": ""}, "not part of the release"),
        ({"extras": ["web"]}, {}, "celery_app_extras is .*only a pyproject.toml or a lock file has extras"),
    ],
)
def test_requirements_that_are_not_there_are_named(prepare, source, changes, files, words):
    for name, text in files.items():
        write(source, name, text=text)
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(**changes)


STATIC = """
[project]
name = "shop"
dependencies = ["celery", "flask>=3"]
[project.optional-dependencies]
web = ["gunicorn"]
[dependency-groups]
base = ["rich"]
prod = [{include-group = "base"}, "sentry-sdk"]
"""
BUILD = '[build-system]\nrequires = ["setuptools"]\n'
DYNAMIC = '[project]\nname = "shop"\ndynamic = ["dependencies"]\n'
POETRY = """
[tool.poetry]
name = "shop"
[tool.poetry.dependencies]
celery = "^5.4"
[tool.poetry.group.prod.dependencies]
gunicorn = "*"
"""


@pytest.mark.parametrize(
    ("text", "extras", "lines"),
    [
        (STATIC, [], ["celery", "flask>=3"]),
        (STATIC, ["web", "prod"], ["celery", "flask>=3", "gunicorn", "rich", "sentry-sdk"]),
        (STATIC + BUILD, [], ["-e ."]),
        (STATIC + BUILD, ["prod", "web"], ["-e .[web]", "rich", "sentry-sdk"]),
        (POETRY + BUILD, [], ["-e ."]),
        (DYNAMIC + BUILD, [], ["-e ."]),
    ],
)
def test_a_pyproject_is_installed_as_it_stands(prepare, source, text, extras, lines):
    write(source, "pyproject.toml", text=text)
    answer = prepare(requirements="pyproject.toml", extras=extras)
    with tarfile.open(answer["archive"]) as tar:
        assert tar.extractfile("requirements.txt").read().decode().splitlines() == lines


def test_a_pyproject_in_a_directory_of_the_application_is_installed_from_there(prepare, source):
    write(source, "backend/pyproject.toml", text=STATIC + BUILD)
    answer = prepare(requirements="backend/pyproject.toml", extras=["web"])
    with tarfile.open(answer["archive"]) as tar:
        assert tar.extractfile("requirements.txt").read().decode() == "-e ./backend[web]\n"


def test_a_pyproject_with_a_byte_order_mark_is_refused_with_what_to_type(prepare, source):
    write(source, "pyproject.toml", text=f"\ufeff{STATIC}")
    with pytest.raises(AnsibleActionFail, match=r"begins with a byte order mark.*Type, in the source: (.*)") as caught:
        prepare(requirements="pyproject.toml")
    subprocess.run(str(caught.value).partition("in the source: ")[2], shell=True, cwd=source, check=True)
    assert prepare(requirements="pyproject.toml")["id"]


@pytest.mark.parametrize(
    ("text", "extras", "words"),
    [
        (STATIC, ["wbe"], "no such extra or dependency group; available: web, base, prod. Write: celery_app_extras: "),
        (DYNAMIC, [], "dependencies are dynamic.*write: celery_app_requirements: requirements.txt"),
        (POETRY, [], r"in \[tool.poetry\].*poetry lock; and write: celery_app_requirements: poetry.lock"),
        (POETRY + BUILD, ["prod"], r"\[tool.poetry.group\], which pip can't read. Type, in the source: poetry lock"),
        ("[project\n", [], "celery_app_requirements: pyproject.toml: "),
    ],
)
def test_a_pyproject_that_pip_can_not_read_is_refused_with_what_to_write(prepare, source, text, extras, words):
    write(source, "pyproject.toml", text=text)
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(requirements="pyproject.toml", extras=extras)


@pytest.mark.parametrize(
    ("lock", "command"),
    [
        ("uv.lock", "uv export --frozen --no-dev --no-emit-project --format requirements-txt --extra web --group prod"),
        ("poetry.lock", "poetry export --no-interaction --only main,prod --format requirements.txt --extras web"),
        ("pdm.lock", "pdm export --prod --format requirements --group web --group prod"),
    ],
)
def test_a_lock_file_whose_tool_is_missing_is_refused_with_the_command(prepare, source, monkeypatch, lock, command):
    write(source, lock)
    write(source, "pyproject.toml", text=STATIC)
    monkeypatch.setenv("PATH", str(Path(shutil.which("git")).parent))
    words = f"is not on the control node.*{command} > requirements.txt; commit that file, and write: celery_app_requ"
    with pytest.raises(AnsibleActionFail, match=words):
        prepare(requirements=lock, extras=["web", "prod"])


def export_of(lock, lines, tmp_path, monkeypatch):
    """What a lock file's tool prints in the directory of the file; the tool itself is no part of the kit."""
    tool = tmp_path / "bin" / lock.removesuffix(".lock")
    write(tmp_path, f"bin/{tool.name}", text=f"#!/bin/sh\ncat <<EOF\ncelery==5.4\n{lines}\nEOF\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("lock", "exported", "line"),
    [
        (
            "poetry.lock",
            '-e file://$PWD/libs/money ; python_version >= "3.11"',
            '-e ./libs/money ; python_version >= "3.11"',
        ),
        ("poetry.lock", "money[eur] @ file://$(realpath ..)/libs/big%20money ; x", "./../libs/big money[eur] ; x"),
        ("poetry.lock", "money @ file:///opt/wheels/money-1.0.whl", "money @ file:///opt/wheels/money-1.0.whl"),
        ("poetry.lock", "money @ file://$PWD/money.whl ; x --hash=sha256:a --hash=sha256:b", "./money.whl ; x"),
        ("pdm.lock", r"-e file:///\${PROJECT_ROOT}/libs/money#egg=money", "-e ./libs/money"),
        ("uv.lock", "-e ../libs/money", "-e ./../libs/money"),
        ("uv.lock", "./money-1.0.whl ; x", "./money-1.0.whl ; x"),
    ],
)
def test_what_a_lock_file_has_of_the_source_has_the_path_that_it_has_on_a_host(
    prepare, source, monkeypatch, tmp_path, lock, exported, line
):
    write(source, f"prices/{lock}")
    write(source, "prices/pyproject.toml", text=STATIC)
    export_of(lock, exported, tmp_path, monkeypatch)
    answer = prepare(directory="prices", requirements=lock)
    with tarfile.open(answer["archive"]) as tar:
        assert tar.extractfile("project.txt").read().decode().splitlines() == [line]


@pytest.mark.parametrize(
    ("lock", "exported", "line"),
    [
        ("uv.lock", "-e ./libs/money", "-e ./prices/libs/money"),
        ("uv.lock", "../money-1.0.whl ; x", "./money-1.0.whl ; x"),
        ("poetry.lock", "-e file://$PWD/libs/money", "-e ./prices/libs/money"),
        ("pdm.lock", r"-e file:///\${PROJECT_ROOT}/libs/money#egg=money", "-e ./prices/libs/money"),
    ],
)
def test_a_lock_file_in_a_directory_of_the_application_names_what_pip_finds(
    prepare, source, monkeypatch, tmp_path, lock, exported, line
):
    write(source, f"prices/{lock}")
    write(source, "prices/pyproject.toml", text=STATIC + BUILD)
    export_of(lock, exported, tmp_path, monkeypatch)
    answer = prepare(requirements=f"prices/{lock}")
    with tarfile.open(answer["archive"]) as tar:
        assert tar.extractfile("project.txt").read().decode().splitlines() == [line, "-e ./prices"]


@pytest.mark.parametrize(("project", "own"), [(STATIC, []), (STATIC + BUILD, ["-e ."])])
def test_what_a_lock_file_has_of_the_source_is_installed_after_the_rest(
    prepare, source, monkeypatch, tmp_path, project, own
):
    write(source, "uv.lock")
    write(source, "pyproject.toml", text=project)
    # What `uv export` prints; the tool itself is no part of the kit.
    exported = "# made\\ncelery==5.4 \\\\\\n  --hash=sha256:a\\n-e ./libs/money\\n"
    write(tmp_path, "bin/uv", text=f"#!/bin/sh\nprintf '{exported}'\n")
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    answer = prepare(requirements="uv.lock")
    with tarfile.open(answer["archive"]) as tar:
        requirements, rest = (tar.extractfile(f"{name}.txt").read().decode() for name in ("requirements", "project"))
    assert requirements.split() == ["celery==5.4", "--hash=sha256:a"]
    assert rest.splitlines() == ["-e ./libs/money", *own]
    write(tmp_path, "bin/uv", text="#!/bin/sh\necho the lock file is out of date >&2\nexit 2\n")
    with pytest.raises(AnsibleActionFail, match=r"failed on the control node:\n.*out of date"):
        prepare(requirements="uv.lock")
