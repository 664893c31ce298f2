"""The virtualenv of a release is made on a host, really: what pip is given, what is damaged, what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import build_command, virtualenvs
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import archives, locked
from support.release_host import APP, CELERY, TOKEN, Host, make_wheel

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for runuser"),
    pytest.mark.usefixtures("conf_d", "no_settings_of_another"),
]


def site_packages(host: Host) -> Path:
    return next(host.venv.glob("lib/python3*/site-packages"))


def damage_package(host):
    (site_packages(host) / "shoplib/big.py").unlink()


def damage_empty(host):
    (site_packages(host) / "shoplib/big.py").write_text("")


def damage_python(host):
    (host.venv / "bin/python").unlink()
    (host.venv / "bin/python").symlink_to("/usr/bin/python3.2")


def damage_link(host):
    (host.release / "venv").unlink()


@pytest.mark.parametrize("damage", [damage_package, damage_empty, damage_python])
def test_a_damaged_virtualenv_is_made_anew_beside_what_runs_from_it(damage, built):
    old = built.venv
    other = built.releases.directory / "other"
    other.mkdir()
    (other / "venv").symlink_to(os.path.relpath(old, other))
    running = subprocess.Popen(
        ["sleep", "60"], env={"CELERY_OPS_VIRTUALENV": str(old), "PATH": os.environ["PATH"]}, process_group=0
    )
    try:
        damage(built)
        answer = built.build(archive=False)
        assert answer["changed"] and "is damaged" in answer["warnings"][0]
        assert built.venv != old
        assert (other / "venv").resolve() == built.venv
        virtualenvs.prune_virtualenvs(built.releases.base, {built.venv}, "")
        assert old.exists()
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(other)
    virtualenvs.prune_virtualenvs(built.releases.base, {built.venv}, "")
    assert not old.exists()
    assert not built.build(archive=False)["changed"]
    assert built.status == "good"


def upgrade_python(venv: Path) -> None:
    """What an upgrade of Debian leaves of a virtualenv: python3 is another version, which looks elsewhere."""
    site = next(venv.glob("lib/python3*"))
    site.rename(site.with_name("python3.2"))


def good_then_another(host: Host) -> Path:
    """Build a release, which was good, and one with another lock file; return the first."""
    host.build()
    first = host.release
    host.releases.write_note(first.name, status="good", good_at=1.0)
    (host.source / "requirements.txt").write_text("celery\n# another lock file\n")
    host.packed = host.pack()
    host.build()
    return first


def test_after_an_upgrade_of_python_current_and_a_rollbacks_target_get_new_virtualenvs(host):
    first = good_then_another(host)
    host.releases.write_note(host.release.name, status="good", good_at=2.0)
    venvs = [(first / "venv").resolve(), host.venv]
    assert venvs[0] != venvs[1]
    assert not any(map(virtualenvs.has_lost_its_python, venvs))
    for venv in venvs:
        upgrade_python(venv)
    assert all(map(virtualenvs.has_lost_its_python, venvs))
    assert host.build(archive=False, check_mode=True)["changed"]
    answer = host.build(archive=False)
    assert answer["changed"] and f"Release {first.name}, a rollback's target" in answer["warnings"][-1]
    for release_ in (first, host.release):
        subprocess.run([release_ / "venv/bin/python", "-c", "import celery"], check=True)
        assert host.releases.note(release_.name)["status"] == "good"
    assert not host.build(archive=False)["changed"]


def test_a_rollbacks_target_that_can_not_be_built_anew_is_no_target_any_more(host):
    first = good_then_another(host)
    upgrade_python((first / "venv").resolve())
    (first / "app/requirements.txt").write_text("celery\nneeds-the-old-python==1\n")
    answer = host.build(archive=False)
    assert "and can't be rebuilt: " in answer["warnings"][-1]
    assert host.releases.note(first.name)["status"] == "failed"
    assert not host.build(archive=False)["changed"]


@pytest.mark.parametrize(
    ("target", "directory", "lost"),
    [
        ("/nowhere/python3.11", "python3.11", True),
        (os.path.realpath(sys.executable), "python3.2", True),
        (os.path.realpath(sys.executable), Path(sysconfig.get_path("stdlib")).name, False),
        (os.path.realpath(sys.executable), None, False),
    ],
)
def test_a_virtualenv_whose_python_is_gone_is_told_at_a_glance(target, directory, lost, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(target)
    if directory:
        (tmp_path / "lib" / directory).mkdir(parents=True)
    assert virtualenvs.has_lost_its_python(tmp_path) is lost


def test_a_virtualenv_whose_link_was_lost_is_found_again(built):
    old = built.venv
    (built.release / "venv").unlink()
    assert built.build(archive=False)["changed"]
    assert built.venv == old


@pytest.mark.parametrize("retries", ["1", "0"])
def test_an_index_that_cannot_be_reached_is_not_the_releases_fault(host, retries):
    index = {"PIP_INDEX_URL": f"http://ci:{TOKEN}@127.0.0.1:9/simple", "PIP_RETRIES": retries, "PIP_TIMEOUT": "1"}
    error = host.fail(install_environment=json.dumps(index))
    assert not error.release_fault
    assert host.status == "building"
    assert TOKEN not in str(error)
    assert TOKEN not in (host.release / "release.json").read_text()
    assert host.build()["changed"]
    assert host.status == "built"


@pytest.fixture
def proxy():
    """A proxy that lets nothing through, and the hosts that it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(407)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://ci:{TOKEN}@127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("requirement", "asked_for"),
    [("nowhere", "index.invalid:443"), ("nowhere @ git+https://git.invalid/nowhere.git", "git.invalid:443")],
    ids=["pip", "git"],
)
def test_pip_and_the_git_that_it_runs_take_the_proxy_and_what_it_refuses_is_not_the_releases_fault(
    host, proxy, requirement, asked_for
):
    url, asked = proxy
    (host.source / "requirements.txt").write_text(f"celery\n{requirement}\n")
    host.packed = host.pack()
    environment = {
        "PIP_INDEX_URL": "https://index.invalid/simple", "PIP_FIND_LINKS": str(host.wheels), "PIP_RETRIES": "1",
        "HTTPS_PROXY": url, "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    error = host.fail(install_environment=json.dumps(environment))
    assert asked_for in asked, str(error)
    assert not error.release_fault, str(error)
    assert TOKEN not in str(error)


@pytest.mark.parametrize("remote", ["https://127.0.0.1:9/x", "https://git.invalid/x"])
def test_a_git_server_that_is_not_reached_is_not_the_releases_fault(remote):
    with pytest.raises(ReleaseError) as caught:
        build_command.run(["git", "ls-remote", remote], "git", "", {}, 60, of_release=True)
    assert not caught.value.release_fault, str(caught.value)


def test_a_token_is_not_shown_even_where_pip_repeats_it(host):
    error = host.fail(install_environment=json.dumps({"PIP_TIMEOUT": TOKEN}))
    assert "********" in str(error)
    assert TOKEN not in str(error)


def test_a_requirement_that_does_not_exist_is_the_releases_fault(host):
    (host.source / "requirements.txt").write_text("celery==9.9\n")
    host.packed = host.pack()
    assert host.fail().release_fault
    assert host.status == "failed"


def test_a_python_or_venv_that_is_missing_is_not_the_releases_fault(host):
    for python in ("/usr/bin/python3.2", "/bin/true"):
        error = host.fail(python=python)
        assert not error.release_fault
        assert host.status == "building"


def test_what_a_login_has_set_for_its_own_python_is_no_part_of_a_virtualenv(host, login):
    make_wheel(host.directory, "celery", metadata.version("celery"), CELERY)
    with zipfile.ZipFile(next(host.directory.glob("celery-*.whl"))) as wheel:
        wheel.extractall(host.directory / "opt")
    login(PYTHONPATH=str(host.directory / "opt"), PIP_USER="1")
    host.build()
    assert (host.venv / "bin/celery").exists()


BACKEND = """
import base64, pathlib, zipfile
def _build(directory, files):
    info = "prices-2.1.dist-info"
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\\nName: prices\\nVersion: 2.1\\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/entry_points.txt"] = "[console_scripts]\\nprices = prices:main\\n"
    files[f"{info}/RECORD"] = ""
    with zipfile.ZipFile(pathlib.Path(directory, "prices-2.1-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "prices-2.1-py3-none-any.whl"
def build_editable(directory, *_):
    return _build(directory, {"prices.pth": str(pathlib.Path("src").absolute()) + "\\n"})
"""


PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "prices"
version = "2.1"
"""


def a_monorepo(host: Host, requirements: dict[str, str]) -> None:
    """services/prices with a package below src/ that is installed; it imports libs/money of the same repository."""
    files = {
        **{f"services/prices/{name}": text for name, text in requirements.items()},
        "services/prices/pyproject.toml": PROJECT,
        "services/prices/backend.py": BACKEND,
        "services/prices/plain.py": APP,
        "services/prices/src/prices/__init__.py": "import sys\nfrom importlib import metadata\n"
        "sys.path.append('../../libs')\nimport money\n"
        + APP
        + "app.conf.task_default_queue = metadata.version('prices')\n",
        "libs/money.py": "",
    }
    for name, text in files.items():
        (host.source / name).parent.mkdir(parents=True, exist_ok=True)
        (host.source / name).write_text(text)
    host.packed = host.pack(directory="services/prices")


def test_a_directory_of_a_repository_with_nested_requirements_and_the_project_itself_installed(host):
    a_monorepo(
        host,
        {"requirements.txt": "-r deep/base.txt\n-e .\n", "deep/base.txt": "-r more.txt\n", "deep/more.txt": "celery\n"},
    )
    host.build(celery_module="prices")
    assert host.status == "built"
    app = (host.release / "app").resolve()
    assert app == host.release / "source/services/prices"
    assert host.releases.note(host.packed["id"])["inspect"]["default_queue"] == "2.1"
    assert (host.venv / "bin/prices").exists()
    assert host.build(archive=False, celery_module="prices")["changed"] is False
    # The project's code is in the virtualenv of its own release, which has the rest of the one before.
    first = host.venv
    (host.source / "services/prices/src/prices/more.py").write_text("")
    host.packed = host.pack(directory="services/prices")
    host.build(celery_module="prices", install_environment=json.dumps({"PIP_NO_INDEX": "1"}))
    assert host.venv != first
    for name in ("prices", "celery", "pip"):
        assert (host.venv / "bin" / name).read_text().startswith(f"#!{host.venv}/bin/python")
        assert (first / "bin" / name).read_text().startswith(f"#!{first}/bin/python")
    show = [str(host.venv / "bin/python"), "-c", "import prices; print(prices.__path__)"]
    said = subprocess.run(show, capture_output=True, text=True, cwd=host.release / "app", check=True).stdout
    assert str(host.release) in said
    (app / "deep/base.txt").write_text("")
    assert (
        "source/services/prices/deep/base.txt is missing or was changed"
        in host.build(check_mode=True, archive=False, id=first_id(host), celery_module="prices")["warnings"][0]
    )


def test_a_host_builds_a_release_that_another_host_has_from_its_files(host, tmp_path):
    a_monorepo(host, {"requirements.txt": "celery\n"})
    host.packed = host.pack(directory="services/prices", shared=["media"])
    commands = [["touch", str(host.release / "app/made.css")]]
    host.build(celery_module="plain", commands=commands)
    other = Host(tmp_path / "other")
    other.packed = {**host.packed, "archive": str(tmp_path / "release.tar.gz")}
    left_out = ("--exclude=./venv", "--exclude=./release.json", "--exclude=__pycache__")
    subprocess.run(["tar", "-czf", other.packed["archive"], *left_out, "-C", str(host.release), "."], check=True)
    other.build(celery_module="plain", commands=[["touch", str(other.release / "app/ran")]])
    app = other.release / "app"
    assert app.resolve() == other.release / "source/services/prices"
    assert (app / "made.css").exists() and (app / "ran").exists() and (app / "media").is_symlink()
    assert other.build(archive=False, celery_module="plain")["changed"] is False


def first_id(host: Host) -> str:
    return min(host.releases.all(), key=lambda name: host.releases.note(name)["built_at"])


def test_a_virtualenv_that_is_damaged_is_not_copied(built, tmp_path):
    for name in ("broken", "other"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / ".complete").write_text("kind" if name == "broken" else "other kind")
    assert virtualenvs.alike(tmp_path, "kind") is None
    kind = (built.venv / ".complete").read_text()
    assert virtualenvs.alike(built.venv.parent, kind) == built.venv


def test_a_lock_file_that_changes_installs_what_it_changes_and_leaves_the_other_virtualenv_as_it_is(host):
    def lock(*wheels: str) -> str:
        lines = []
        for wheel in wheels:
            [path] = host.wheels.glob(f"{wheel}-*.whl")
            name, version, *_ = path.name.split("-")
            lines.append(f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
        return "".join(lines)

    def build(text: str) -> Path:
        (host.source / "requirements.txt").write_text(text)
        host.packed = host.pack()
        host.build()
        return site_packages(host)

    for name, version in (("prices", "1.0"), ("prices", "2.0"), ("gone", "1.0"), ("same", "1.0")):
        make_wheel(host.wheels, name, version, {f"{name}.py": f"VERSION = '{version}'\n"})
    first = build(lock("celery", "prices-1.0", "gone", "same"))
    make_wheel(host.wheels, "same", "1.0", {"same.py": "VERSION = 'another'\n"})  # with another hash
    second = build(lock("celery", "prices-2.0", "same"))
    assert first != second
    assert [(each / "prices.py").read_text() for each in (first, second)] == ["VERSION = '1.0'\n", "VERSION = '2.0'\n"]
    assert [(each / "same.py").read_text() for each in (first, second)] == [
        "VERSION = '1.0'\n",
        "VERSION = 'another'\n",
    ]
    assert (first / "gone.py").exists() and not (second / "gone.py").exists()
    assert (first / "shoplib/big.py").samefile(second / "shoplib/big.py"), "what is the same is the same on the disk"
    assert str(second.parents[2]) in (second.parents[2] / "bin/celery").read_text()
    assert not list(virtualenvs.damaged_virtualenv(first.parents[2]))
    third = build("celery\n")
    assert not (first / "shoplib/big.py").samefile(third / "shoplib/big.py"), "pip resolves what is no lock file"


def test_a_lock_file_is_one_in_which_each_line_has_hashes():
    pinned = "Foo_Bar[x]==1.0 ; python_version < '4' \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd  # by\n"
    assert list(locked({"a": f"-r b\n{pinned}", "b": "baz===2 --hash=sha256:ef\n"}) or ()) == ["foo-bar", "baz"]
    for other in ("foo==1.0\n", "foo>=1 --hash=sha256:ab\n", "-r https://h/x.txt\n", "--pre\n", ""):
        assert locked({"a": other + (pinned if other else "")}) is None


def test_an_included_file_that_changes_is_another_virtualenv(host):
    files = {"requirements.txt": "-r base.txt\n-c pins.txt\n", "base.txt": "celery\n", "pins.txt": "x==1\n"}
    release = host.releases.directory / "r1"
    (release / "app").mkdir(parents=True)
    for name, text in files.items():
        (release / "app" / name).write_text(text)
    assert set(virtualenvs.requirement_texts(release, "requirements.txt").values()) == set(files.values())
    (release / "app/pins.txt").unlink()
    with pytest.raises(ReleaseError, match=r"requirements.txt names pins.txt: No such file.*Add it to the source"):
        virtualenvs.requirement_texts(release, "requirements.txt")


@pytest.mark.parametrize(
    "lines", ["--find-links vendor\nmoney\n", "-f vendor/\nmoney==1.0\n", "./vendor/money-1.0-py3-none-any.whl\n"]
)
def test_a_package_of_the_source_that_has_changed_under_its_version_is_installed_anew(host, lines):
    (host.source / "vendor").mkdir()
    (host.source / "requirements.txt").write_text(f"celery\n{lines}")

    def installed(code: str) -> str:
        make_wheel(host.source / "vendor", "money", "1.0", {"money.py": code})
        host.packed = host.pack()
        host.build()
        return (site_packages(host) / "money.py").read_text()

    assert installed("RATE = 1\n") == "RATE = 1\n"
    assert installed("RATE = 2\n") == "RATE = 2\n"


def test_what_is_no_path_is_no_package_of_the_source(tmp_path):
    for line in (
        "celery[redis]>=5.4",
        f"x @ https://h/{'x' * 300}.whl",
        "-r base.txt",
        "-f https://h/",
        "-e .",
        "--pre",
    ):
        assert list(archives(line, [tmp_path])) == []


@pytest.mark.parametrize(
    ("line", "local"),
    [
        *((line, True) for line in ("-e .", ".", ".[web]", "./libs/x", "../x", "libs/x", "w/x.whl ; os_name == 'x'")),
        *((line, True) for line in ("x @ file:///x", "--editable=libs/x", "x-1.0.tar.gz")),
        *(
            (line, False)
            for line in ("celery[redis]==5.4 --hash=sha256:a/b", "-e git+https://h/x#egg=x", "-r base.txt")
        ),
        *((line, False) for line in ("x @ git+ssh://git@h/x", "https://h/x.whl", "--find-links ./wheels", "x # ./y")),
    ],
)
def test_what_is_of_the_source_itself_is_told_from_what_pip_fetches(line, local):
    assert virtualenvs.names_local({"requirements.txt": line}) is local
