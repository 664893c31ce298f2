"""A release is built on a host, really: its virtualenv, the import as the application's user, what is then damaged."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.action import release_source
from ansible_collections.celery_ops.kit.plugins.module_utils import build_command, listeners, release_build, virtualenvs
from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError, masked
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Release
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import archives, locked
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over
from ansible_collections.celery_ops.kit.plugins.modules import release
from ansible_collections.celery_ops.kit.plugins.modules.release import Releases

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for runuser")
ROOT = Path(__file__).resolve().parents[3]

TOKEN = "s3cr3t-t0ken"
# The Celery of these tests, installed in a moment.
CELERY = {"celery_here.pth": f"{sysconfig.get_path('purelib')}\n", "shoplib/big.py": "BIG = 1\n"}
APP = "from celery import Celery\n\napp = Celery('shop')\n"


def make_wheel(directory: Path, name: str, version: str, files: dict[str, str], scripts: str = "") -> None:
    """A wheel with these files and a console script of its own name, or these."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": scripts or f"[console_scripts]\n{name} = {name}:main\n",
    }
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        record = "".join(f"{path},,{len(text)}\n" for path, text in files.items())
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


class Host:
    """A directory that is a host, and the control node's side of it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.runtime = directory, ROOT / "runtime"
        self.releases = Releases("shop", directory / "srv/shop")
        self.source, self.wheels = directory / "source", directory / "wheels"
        for path in (self.source, self.wheels, self.releases.directory, directory / "etc", directory / "conf.d"):
            path.mkdir(parents=True)
        make_wheel(self.wheels, "celery", metadata.version("celery"), CELERY)
        (self.source / "requirements.txt").write_text("celery\n")
        (self.source / "shop.py").write_text(APP)
        (self.source / "data.txt").write_text("data\n")
        self.environment = directory / "etc/env"
        self.environment.write_text("")
        self.packed = self.pack()

    def pack(self, **changes) -> dict[str, str]:
        return release_source.prepare(
            {
                "source": str(self.source), "version": "HEAD", "requirements": "requirements.txt", "exclude": [],
                "runtime": str(self.runtime), "cache": str(self.directory / "cache"),
                "shared_directory": str(self.releases.base / "shared"), **changes,
            }
        )  # fmt: skip

    def options(self, archive: bool = True, **changes) -> dict:
        given = {
            "app": "shop", "base": str(self.releases.base), "id": self.packed["id"], "python": sys.executable,
            "celery_module": "shop", "environment_file": str(self.environment), "user": getpass.getuser(),
            "archive": str(shutil.copy(self.packed["archive"], self.directory / "sent")) if archive else None,
            "install_environment": json.dumps({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}),
            "listener": self.packed["listener"],
        }  # fmt: skip
        defaults = {name: option.get("default") for name, option in release.ARGUMENTS.items()}
        return {**defaults, **given, **changes}

    def build(self, check_mode: bool = False, **changes) -> dict:
        return release.act(self.options(**changes), check_mode)

    def fail(self, **changes) -> ReleaseError:
        with pytest.raises(ReleaseError) as caught:
            self.build(**changes)
        return caught.value

    @property
    def release(self) -> Path:
        return self.releases.directory / self.packed["id"]

    @property
    def venv(self) -> Path:
        return (self.release / "venv").resolve()

    @property
    def status(self) -> str:
        return self.releases.note(self.packed["id"])["status"]


@pytest.fixture(autouse=True)
def _conf_d(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "CONF_D", tmp_path / "conf.d")
    monkeypatch.setattr(release_build, "NICER", 0)  # for all tests of this process
    before = os.umask(0o077)  # a hardened host's
    yield
    os.umask(before)


@pytest.fixture(autouse=True, scope="module")
def _no_settings_of_another():
    """The reference application's settings are pytest-django's business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        yield


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A host with a good release. A test that damages it sees it built anew."""
    before = os.umask(0o077)
    host = Host(tmp_path_factory.mktemp("built"))
    host.build()
    host.releases.write_note(host.packed["id"], status="good", good_at=1)
    os.umask(before)
    return host


def like(built: Host, directory: Path) -> Host:
    """Another host, which has the virtualenvs already."""
    host = Host(directory)
    shutil.copytree(built.releases.base / "venvs", host.releases.base / "venvs", symlinks=True)
    return host


def test_a_release_is_built_once_and_looked_at_in_a_moment(built):
    assert built.build(archive=False)["changed"] is False
    begun = time.process_time()
    for _ in range(5):
        assert not built.build(archive=False)["changed"]
    assert time.process_time() - begun < 5 * 0.3
    assert built.status == "good"


def test_what_is_built_is_the_applications_to_read_whatever_the_umask(built):
    for path in (built.release / "app", built.venv, built.releases.base / "listeners"):
        assert path.stat().st_mode & 0o755 == 0o755, path
    assert (built.release / "bin/celery-ops-guard").stat().st_mode & 0o555 == 0o555
    assert (built.release / "runtime/celery_ops/settings.py").stat().st_mode & 0o444 == 0o444


def test_another_runtime_is_another_release_with_the_same_virtualenv(built, tmp_path):
    host = like(built, tmp_path)
    host.packed = host.pack()
    host.build()
    before, virtualenv = host.release, host.venv
    host.runtime = shutil.copytree(ROOT / "runtime", tmp_path / "runtime")
    with (host.runtime / "celery_ops/worker/versions.py").open("a") as file:
        file.write("NEWER = True\n")
    host.packed = host.pack()
    host.build(install_environment=json.dumps({"PIP_NO_INDEX": "1"}))  # nothing could be installed
    assert host.release != before
    assert host.venv == virtualenv and len(list(virtualenv.parent.iterdir())) == 1
    show = "from celery_ops.worker import versions; print(versions.__file__, hasattr(versions, 'NEWER'))"
    for release_, has_it in ((before, False), (host.release, True)):
        command = [release_ / "bin/celery-ops-env", host.environment, "--", "python", "-c", show]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert said == [f"{release_}/runtime/celery_ops/worker/versions.py", str(has_it)]


OLD = {  # as 0.1 packed it
    "celery_ops/__init__.py": "",
    "celery_ops/env.py": "import os, sys\ndef main(): os.execv(sys.argv[-5], sys.argv[-5:])\n",
    "celery_ops/inspect.py": 'def main(): print(\'{"refused": [], "by": "0.1"}\')\n',
    "celery_ops/health.py": "def main(): print('health')\n",
    "celery_ops/listener.py": "def main(): print('listener')\n",
    "celery_ops/process.py": "",
}


def test_a_release_that_0_1_packed_is_built_with_its_own_runtime_and_has_the_new_commands(built, tmp_path):
    host = like(built, tmp_path)
    scripts = "\n".join(f"celery-ops-{name} = celery_ops.{name}:main" for name in ("env", "inspect", "health"))
    make_wheel(host.directory, "celery_ops", "0.1.0", OLD, f"[console_scripts]\n{scripts}\n")
    (host.directory / "app").mkdir()
    shutil.copy(host.source / "shop.py", host.directory / "app/shop.py")
    (host.directory / "app/requirements.txt").write_text("celery\n")
    wheel = next(host.directory.glob("celery_ops-*.whl"))
    host.packed |= {"id": "0123456789ab", "archive": str(host.directory / "old.tar.gz")}
    tar = ["tar", "-C", host.directory, "--mtime=@0", "-czf", host.packed["archive"], wheel.name, "app"]
    subprocess.run(tar, check=True)
    answer = host.build()
    assert answer["inspect"]["by"] == "0.1"
    said = subprocess.run([host.release / "bin/celery-ops-watchdog"], capture_output=True, text=True, check=True)
    assert said.stdout == "health\n"
    said = subprocess.run([sys.executable, "-I", answer["listener"]], capture_output=True, text=True, check=True)
    assert said.stdout == "listener\n"
    assert host.build(archive=False)["changed"] is False
    shutil.rmtree(host.release / "bin")  # as 0.1 left it
    assert Release(host.release).command_here("celery-ops-watchdog") == host.release / "venv/bin/celery-ops-health"
    assert host.build(archive=False)["changed"] is False


def damage_file(host):
    (host.release / "app/data.txt").write_text("DATA\n")


def damage_missing_file(host):
    (host.release / "app/shop.py").unlink()


def damage_directory(host):
    shutil.rmtree(host.release / "app")


def damage_runtime(host):
    (host.release / "runtime/celery_ops/settings.py").write_text("")


def damage_commands(host):
    shutil.rmtree(host.release / "bin")


@pytest.mark.parametrize(
    "damage", [damage_file, damage_missing_file, damage_directory, damage_runtime, damage_commands]
)
def test_a_damaged_release_is_brought_back_from_its_archive_and_stays_good(damage, built):
    damage(built)
    (built.release / "app").mkdir(exist_ok=True)
    (built.release / "app/made-by-a-hook").touch()
    assert built.build(archive=False)["needs_archive"]
    assert "is damaged and is rebuilt: " in built.build(check_mode=True)["warnings"][0]
    answer = built.build()
    assert answer["changed"] and "is damaged" in answer["warnings"][0]
    assert (built.release / "app/data.txt").read_text() == "data\n"
    assert (built.release / "app/made-by-a-hook").exists()
    assert not built.build(archive=False)["changed"]
    assert built.status == "good"


def site_packages(host) -> Path:
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


def test_after_an_upgrade_of_python_current_and_a_rollbacks_target_get_new_virtualenvs(host):
    host.build()
    first = host.release
    host.releases.write_note(first.name, status="good", good_at=1.0)
    (host.source / "requirements.txt").write_text("celery\n# another lock file\n")
    host.packed = host.pack()
    host.build()
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
    host.build()
    first = host.release
    host.releases.write_note(first.name, status="good", good_at=1.0)
    (host.source / "requirements.txt").write_text("celery\n# another lock file\n")
    host.packed = host.pack()
    host.build()
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


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import nowhere", True),
        ("raise OSError(28, 'No space left on device')", False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", False),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", False),
    ],
)
def test_an_import_that_fails_is_the_releases_fault_unless_the_host_is_to_blame(code, fault, built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{code}\n{APP}")
    host.packed = host.pack()
    assert host.fail().release_fault is fault
    assert host.status == ("failed" if fault else "building")


def test_an_import_may_take_as_long_as_a_worker_to_start(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"import time\ntime.sleep(4)\n{APP}")
    host.packed = host.pack()
    assert "did not end within 1 s" in str(error := host.fail(import_timeout=1)) and not error.release_fault
    assert "write: celery_worker_ready_timeout: 5" in str(error)
    assert host.build(import_timeout=60)["changed"]


def test_what_the_application_is_stands_in_its_release_and_is_said_once(built):
    answer = built.build(archive=False)
    report = answer["inspect"]
    assert report == built.releases.note(built.packed["id"])["inspect"]
    assert report["queues"] == ["celery"] and report["versions"]["celery"]
    assert "warnings" not in answer, "said when it was built"
    assert built.build(archive=False, check_mode=True)["inspect"] == report
    assert "task_acks_late is False" in next(release_build.unsafe(report))


def test_another_environment_is_inspected_before_anything_runs_with_it(built):
    other = built.environment.with_name("env-2")
    other.write_text("CELERY_RESULT_BACKEND=mongodb://there/\n")
    error = built.fail(archive=False, environment_file=str(other))
    assert "client can't be imported" in str(error) and "Write: celery[mongodb]" in str(error)
    assert not error.release_fault, "what was built already was good with the settings before"
    assert built.status in ("built", "good")
    other.write_text("CELERY_BROKER_URL=amqp://shop:secret@there//\n")
    answer = built.build(archive=False, environment_file=str(other))
    assert answer["inspect"]["broker"]["url"] == "amqp://shop:********@there:5672//"
    assert "app.conf.task_acks_late = True" in answer["warnings"][0]


def test_an_application_that_can_not_work_is_refused_with_the_line_to_write(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(APP + "app.conf.result_backend = 'mongodb://there/'\n")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "mongodb" in str(error) and "Write: celery[mongodb]" in str(error)
    assert "Nothing that runs was touched" in str(error)


@pytest.mark.parametrize("place", ["celery_ops.py", "celery_ops/__init__.py"])
def test_a_module_that_is_called_like_the_runtime_is_refused_by_name(built, tmp_path, place):
    host = like(built, tmp_path)
    (host.source / place).parent.mkdir(exist_ok=True)
    (host.source / place).write_text("RATE = 3\n")
    (host.source / "shop.py").write_text(f"from celery_ops import RATE\n{APP}")
    host.packed = host.pack()
    error = host.fail()
    assert f"{place} has the name of the kit's runtime" in str(error) and "Write: another name for it" in str(error)
    assert error.release_fault
    # A directory of another language's files hides nothing, and neither does a copy that is left out.
    (host.source / "celery_ops/playbooks").mkdir(parents=True)
    (host.source / "celery_ops/playbooks/site.yml").write_text("[]\n")
    (host.source / "shop.py").write_text(f"import celery_ops\n{APP}celery_ops.apply(app)\n")
    host.packed = host.pack(exclude=[f"**/{place}"])
    assert host.build()["inspect"]["settings"] == "celery_ops.apply"


def test_an_environment_variable_that_the_application_misses_is_named_with_where_to_write_it(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"import os\nos.environ['SHOP_KEY']\n{APP}")
    host.packed = host.pack()
    assert "needs the environment variable SHOP_KEY. Write: celery_app_environment: {SHOP_KEY: ...}" in str(host.fail())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("app.config_from_object('django.conf:settings', namespace='CELERY')", "DJANGO_SETTINGS_MODULE"),
        ("app.config_from_envvar('SHOP_CONFIG')", "SHOP_CONFIG"),
    ],
)
def test_so_is_one_by_which_celery_finds_the_settings(built, tmp_path, line, name):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{APP}{line}\n")
    host.packed = host.pack()
    assert f"variable {name}. Write: celery_app_environment: {{{name}: ...}}" in str(host.fail())


@pytest.mark.parametrize(
    "said",
    [
        "decouple.UndefinedValueError: SHOP_KEY not found. Declare it as envvar or define a default value.",
        "django.core.exceptions.ImproperlyConfigured: Set the SHOP_KEY environment variable",
        "ImproperlyConfigured: Requested settings, but settings are not configured. You must either define the "
        "environment variable SHOP_KEY or call settings.configure() before accessing settings.",
        "celery.exceptions.ImproperlyConfigured: The environment variable 'SHOP_KEY' is not set, and as such the",
        'environs.exceptions.EnvError: Environment variable "SHOP_KEY" not set',
        "KeyError: \"Config 'SHOP_KEY' is missing, and has no default.\"",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\nshop_key\n  Field required "
        "[type=missing, input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev",
        "pydantic.error_wrappers.ValidationError: 1 validation error for Settings\nshop_key\n  field required (type=v)",
    ],
)
def test_so_is_one_that_a_library_for_settings_misses(said):
    [told] = build_command.known_causes(f"Traceback\n{said}\n")
    assert "celery_app_secrets: {SHOP_KEY: ...}" in told


def test_a_body_that_pydantic_refuses_is_no_missing_variable():
    said = "ValidationError: 1 validation error for Order\nprice\n  Field required [type=missing, input_value={}]\n"
    assert list(build_command.known_causes(said)) == []


def test_so_is_a_clock_by_which_no_certificate_is_valid():
    said = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate is not yet valid (_ssl.c:1006)"
    [told] = build_command.known_causes(said)
    assert "The clock of this host says 2" in told and "timedatectl set-ntp true" in told


def test_another_key_that_is_missing_is_none():
    assert list(build_command.known_causes("  File \"shop.py\", line 2\n    {}['x']\nKeyError: 'x'\n")) == []


def test_an_application_that_ends_the_process_when_it_is_imported_is_refused_by_name(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text("import os\nos._exit(0)\n")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "shop (release" in str(error) and "os._exit" in str(error)


def test_what_the_inventory_runs_and_the_application_can_not_is_refused_built_or_not(built, tmp_path):
    host = like(built, tmp_path)
    own = "app.conf.update(worker_pool='gevent', beat_scheduler='sched:Mine')\n"
    (host.source / "shop.py").write_text(APP + own)
    host.packed = host.pack()
    for _ in ("not built", "built"):
        error = host.fail(pools=["prefork", "threads", "eventlet"], has_scheduler=True)
        assert "Write: celery_worker_programs: [{name: default, pool: gevent" in str(error)
        assert "Write: eventlet (into requirements.txt), or another pool" in str(error)
        assert "beat_scheduler has the scheduler sched:Mine, which can't be loaded (" in str(error)
        assert "celery_scheduler_enabled: false" in str(error)
        assert not error.release_fault, "another inventory can run it"
        assert host.build(pools=["threads"])["inspect"]["pool"] == "gevent"


def test_a_scheduler_or_options_that_celery_does_not_take_are_refused_by_variable_built_or_not(built):
    def lines(*words):
        return [{"command": "beat", "about": "celery_scheduler_options", "words": list(words)}]

    for archive in (True, False):
        error = built.fail(archive=archive, has_scheduler=True, command_lines=lines("-S", "sched:Mine"))
        assert "celery_scheduler_options has the scheduler sched:Mine, which can't be loaded" in str(error)
        assert "Write: package.module:Class of one, its package into requirements.txt" in str(error)
        error = built.fail(archive=archive, has_scheduler=True, command_lines=lines("--max-intervall", "5"))
        assert "celery beat does not take the options of celery_scheduler_options (No such option" in str(error)
        assert not error.release_fault
    assert built.status in ("built", "good")
    good = {"archive": False, "has_scheduler": True, "command_lines": lines("-S", "celery.beat:Scheduler")}
    assert built.build(**good)["inspect"]["scheduler"] == "celery.beat:Scheduler"
    assert built.build(**good)["changed"] is False


@pytest.mark.parametrize(
    ("known", "refused"), [([], []), (["a", "mail"], []), (["a", "b"], ["mail"])], ids=["makes any", "known", "unknown"]
)
def test_a_queue_that_the_application_does_not_make_is_refused(known, refused):
    options = {"pools": ["prefork"], "queues": ["a", "mail"], "has_scheduler": False, "verify_clients": False}
    found = list(release_build.unfit({"only_queues": known}, options))
    assert [one["write"] for one in found] == [
        f"Queue({name!r}) in task_queues, or another queue in celery_worker_programs" for name in refused
    ]


def test_a_deploy_without_the_files_that_a_new_version_names_is_refused_before_anything_changes(built, tmp_path):
    lines = [f"CELERY_OPS_TLS_{name}={tmp_path}/{name}.pem\n" for name in ("CA", "CLIENT")]
    (tmp_path / "CA.pem").touch()
    said = str(built.fail(environment_text="".join(lines)))
    assert said.startswith(f"There is no {tmp_path}/CLIENT.pem. ") and said.endswith("playbooks/site.yml")
    assert not built.environment.read_text()


@pytest.mark.parametrize("verify", [True, False])
def test_an_application_that_shows_no_certificate_is_refused_where_one_is_asked_for(verify):
    options = {"app": "shop", "pools": [], "queues": [], "has_scheduler": False, "verify_clients": verify}
    assert list(release_build.unfit({"shows_certificate": True}, options)) == []
    assert list(release_build.unfit({}, options)) == [], "what an earlier version built is named by the rollback"
    found = [one["write"] for one in release_build.unfit({"shows_certificate": False}, options)]
    assert len(found) == verify
    assert all("celery_ops.apply(app)" in one and '"certfile": "/etc/shop/client.pem"' in one for one in found)


def test_a_task_that_is_nowhere_and_a_setting_that_the_inventorys_takes_the_place_of_are_said_once(built, tmp_path):
    host = like(built, tmp_path)
    scheduled = "app.conf.beat_schedule = {'x': {'task': 'shop.nothing', 'schedule': 3}}\n"
    (host.source / "shop.py").write_text(f"{APP}app.conf.result_backend = 'rpc://'\n{scheduled}")
    host.environment.write_text("CELERY_RESULT_BACKEND=cache+memory://\n")
    host.packed = host.pack()
    told = "The application's result_backend is rpc://, and cache+memory:// is used in its place. "
    *_, scheduled, ignored = host.build()["warnings"]
    assert "beat_schedule['x'] sends the task shop.nothing, which this application does not have" in scheduled
    assert "Write: " in scheduled and told in ignored
    assert "warnings" not in host.build()


@pytest.mark.parametrize(("own", "by_default", "said"), [(16, True, True), (16, False, False), (2, True, False)])
def test_a_concurrency_of_its_own_that_no_program_has_is_said(own, by_default, said):
    [*told] = release_build.ignored({"concurrency": own}, {"default_concurrency": by_default})
    line = "worker_concurrency is 16, and 2 is used in its place. For the application's own, write: "
    assert [f"{line}celery_worker_programs: [{{name: default, concurrency: 16}}]" in one for one in told] == [
        True
    ] * said


@pytest.mark.parametrize(
    ("place", "write"),
    [
        ("src/prices/__init__.py", "`-e .` into requirements.txt, or celery_app_environment: {PYTHONPATH: src}"),
        ("backend/prices.py", "celery_app_directory: backend"),
    ],
)
def test_an_application_that_is_one_directory_below_is_found_and_said(built, tmp_path, place, write):
    host = like(built, tmp_path)
    (host.source / place).parent.mkdir(parents=True)
    (host.source / place).write_text(APP)
    host.packed = host.pack()
    error = host.fail(celery_module="prices.celery")
    assert "No module named 'prices'" in str(error) and f"Write: {write}" in str(error)


def test_a_module_that_no_worker_would_find_is_refused_in_the_build(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{APP}app.autodiscover_tasks(['mail'])\n")
    (host.source / "mail").mkdir()
    for name in ("__init__", "tasks"):
        (host.source / f"mail/{name}.py").write_text("")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "No module named 'mail'" in str(error)
    assert "Write: celery_app_environment: {PYTHONPATH: .}, or `import mail` into shop" in str(error)
    # What it says to write is what makes it work.
    host.environment.write_text("PYTHONPATH=.\n")
    host.build()
    host.environment.write_text("")
    assert "shop.py is a file, not a module. Write: celery_app_module: shop" in str(host.fail(celery_module="shop.py"))
    (host.source / "shop.py").write_text(f"{APP}import mail\napp.autodiscover_tasks(['mail'])\n")
    host.packed = host.pack()
    host.build()


@pytest.mark.parametrize("requirements", ["pyproject.toml", "uv.lock"])
def test_a_project_in_src_that_nobody_installs_is_told_how(tmp_path, requirements):
    (tmp_path / "app/src/prices").mkdir(parents=True)
    said = release_build.where_it_is("prices", tmp_path, {"requirements": requirements})
    assert "Write: [build-system] into pyproject.toml, to have it installed, or celery_app_environment" in said


def test_another_module_that_is_missing_is_not_looked_for_where_the_application_is(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "src").mkdir()
    (host.source / "src/shop.py").write_text(APP + "import nowhere\n")
    (host.source / "shop.py").unlink()
    host.packed = host.pack()
    host.environment.write_text("PYTHONPATH=src\n")
    error = host.fail()
    assert "No module named 'nowhere'" in str(error) and "Write" not in str(error)


def test_a_python_or_venv_that_is_missing_is_not_the_releases_fault(host):
    for python in ("/usr/bin/python3.2", "/bin/true"):
        error = host.fail(python=python)
        assert not error.release_fault
        assert host.status == "building"


def migrations(*commands):
    return [{"line": shlex.join(words), "words": words} for words in commands]


def test_a_migration_that_fails_is_the_releases_fault_unless_the_host_is_to_blame(built):
    for script, fault in {
        "echo no such column >&2; exit 1": True,
        "echo Connection refused >&2; exit 1": False,
        "kill -9 $$": False,
    }.items():
        assert built.fail(archive=False, migrate=migrations(["true"], ["sh", "-c", script])).release_fault is fault


@pytest.fixture
def login(monkeypatch):
    """Take over from a login that has set this."""

    def set_(**variables):
        for name, value in {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **variables}.items():
            monkeypatch.setenv(name, value)
        take_over()

    return set_


def test_a_full_disk_of_a_german_host_is_not_the_releases_fault(built, login):
    login(LANGUAGE="de_DE:de")
    error = built.fail(archive=False, migrate=migrations(["true"], ["cp", "/proc/self/status", "/dev/full"]))
    assert not error.release_fault and "No space left on device" in str(error)


def test_what_a_login_has_set_for_its_own_python_is_no_part_of_a_virtualenv(host, login):
    make_wheel(host.directory, "celery", metadata.version("celery"), CELERY)
    with zipfile.ZipFile(next(host.directory.glob("celery-*.whl"))) as wheel:
        wheel.extractall(host.directory / "opt")
    login(PYTHONPATH=str(host.directory / "opt"), PIP_USER="1")
    host.build()
    assert (host.venv / "bin/celery").exists()


def test_a_host_that_is_alone_migrates_when_it_has_built(built, tmp_path):
    migrate = migrations(*(["sh", "-c", f"echo {what} >> {tmp_path}/done"] for what in ("once", "only")))
    assert built.build(check_mode=True, archive=False, migrate=migrate)["changed"]
    assert built.build(archive=False, migrate=migrate)["changed"]
    release.point(built.releases.base / "current", f"releases/{built.packed['id']}")
    assert not built.build(archive=False, migrate=migrate)["changed"]
    (built.releases.base / "current").unlink()
    assert (tmp_path / "done").read_text().split() == ["once", "only"]


def test_the_listener_has_a_directory_for_each_version_and_an_unused_one_goes(built, tmp_path):
    base, package = built.releases.base, built.release / "runtime/celery_ops"
    now = listeners.listener_of(base, package)
    assert built.build(archive=False)["listener"] == str(now) == f"{base}/listeners/{built.packed['listener']}"
    said = subprocess.run([sys.executable, "-I", str(now), "--help"], capture_output=True, text=True, check=True).stdout
    assert "celery-ops-listener" in said
    changed = shutil.copytree(package, tmp_path / "celery_ops")
    (changed / "launch/listener.py").write_text((package / "launch/listener.py").read_text() + "\n# changed\n")
    assert listeners.install_listener(base, changed)
    later = listeners.listener_of(base, changed)
    assert later != now and (now / "__main__.py").exists()
    listeners.prune_listeners(base, f"command=/usr/bin/python3 {now} --bind 127.0.0.1:8000\n")
    assert now.exists() and not later.exists()


def test_the_listeners_version_is_of_all_that_it_imports():
    modules = "(module.__file__ for name, module in sys.modules.items() if 'celery_ops' in name)"
    show = f"import sys, celery_ops.launch.listener; print(*{modules})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    said = subprocess.run([sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True)
    found = {str(Path(path).relative_to(ROOT / "runtime/celery_ops")) for path in said.stdout.split()}
    assert found == set(listeners.listener_files(ROOT / "runtime/celery_ops"))


def test_only_what_may_be_a_secret_is_masked():
    values = [f"https://ci:{TOKEN}@index.example/simple", "/etc/ssl/certs.pem", "5", f"{TOKEN}-2", "https://index/2"]
    text = f"https://ci:{TOKEN}@index.example/simple /etc/ssl/certs.pem 5 {TOKEN}-2 https://index/2 {TOKEN}"
    assert (
        masked(text, values)
        == "https://********@index.example/simple /etc/ssl/certs.pem 5 ******** https://index/2 ********"
    )


@pytest.mark.parametrize("address", ["https://dl.example/{}/acme/simple/", "https://index.example/simple?token={}"])
def test_a_token_in_the_path_of_an_index_is_masked(address):
    token = f"{TOKEN}-0123456789"
    said = f"Looking in indexes: https://main.example/simple, {address.format(token)}"
    values = [f"https://main.example/simple {address.format(token)}"]
    assert masked(said, values) == f"Looking in indexes: https://main.example/simple, {address.format('********')}"


def test_no_login_in_an_address_is_shown_wherever_it_comes_from():
    text = f"x @ https://{TOKEN}@h/x.git redis://:{TOKEN}@h/1 'db+psycopg://me:{TOKEN}@h/y' git+ssh://git@h/z"
    said = "x @ https://********@h/x.git redis://:********@h/1 'db+psycopg://me:********@h/y' git+ssh://git@h/z"
    assert masked(text, []) == said


def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    error = release_build.of_host(OSError(28, "No space left on device", "/srv/shop/x"), Path("/srv/shop"))
    assert "/srv/shop/x: No space left on device. Make room, then run this again: df -h /srv/shop" in str(error)
    assert not error.release_fault


def test_a_host_without_a_web_program_does_not_install_the_listener_again(built, monkeypatch):
    monkeypatch.setattr(release, "CONF_D", built.releases.base / "conf.d")
    release.point(built.releases.base / "current", f"releases/{built.packed['id']}")
    release.prune(built.releases, 5)
    assert built.build(archive=False)["changed"] is False


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
        return next(host.venv.glob("lib/python3*/site-packages"))

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
        return next(host.venv.glob("lib/python3*/site-packages/money.py")).read_text()

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


def test_shared_paths_are_links_that_outlive_a_release_and_are_the_applications_to_write(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "media").mkdir()
    (host.source / "media/sample.png").write_text("")
    host.packed = host.pack(shared=["db.sqlite3", "media", "var/uploads/"])
    assert host.packed["left_out"] == ["1 (celery_app_shared): media/sample.png"]
    host.build()
    shared = host.releases.base / "shared"
    for name in ("db.sqlite3", "media", "var/uploads"):
        assert (host.release / "app" / name).readlink() == shared / name
    assert (shared / "media").is_dir() and (shared / "var/uploads").is_dir()
    assert not (shared / "db.sqlite3").exists(), "it is the application that makes it"
    (host.release / "app/db.sqlite3").write_text("kept")
    (host.source / "shop.py").write_text(f"{APP}\n# two\n")
    host.packed = host.pack(shared=["db.sqlite3", "media", "var/uploads/"])
    host.build()
    assert (host.release / "app/db.sqlite3").read_text() == "kept"
    assert host.build(archive=False)["changed"] is False


def test_build_commands_run_in_the_release_once_before_it_is_imported(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"import made\n{APP}")
    host.packed = host.pack(commands=["make it"])
    app = host.release / "app"
    script = (
        f"echo ran >> {host.directory}/ran; echo > {app}/made.py; echo changed > {app}/data.txt; id -un > {app}/who"
    )
    commands = [["sh", "-c", script], ["test", "-f", f"{app}/made.py"]]
    host.build(commands=commands)
    assert (app / "made.py").stat().st_uid == 0
    assert host.build(archive=False, commands=commands)["changed"] is False
    assert (app / "data.txt").read_text() == "changed\n"
    assert (host.directory / "ran").read_text() == "ran\n"
    assert host.pack(commands=["make more"])["id"] != host.packed["id"]


def test_a_build_command_that_fails_is_the_releases_fault_and_is_shown(built, tmp_path):
    host = like(built, tmp_path)
    error = host.fail(commands=[["sh", "-c", "echo no such template >&2; exit 1"]])
    assert error.release_fault and host.status == "failed"
    assert "celery_app_build_commands (release" in str(error) and "no such template" in str(error)


def test_keys_and_environment_files_are_for_root_and_the_application_only(built, tmp_path):
    host = like(built, tmp_path)
    for name in (".env", "server.key", "run.log"):
        (host.source / name).write_text("secret\n")
    host.packed = host.pack()
    host.build()
    for name, mode in {".env": 0o640, "server.key": 0o640, "run.log": 0o640, "shop.py": 0o644}.items():
        assert (host.release / "app" / name).stat().st_mode & 0o777 == mode, name


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "x.c:1:10: fatal error: libpq-fe.h: No such file or directory",
            "celery_app_packages: [build-essential, libpq-dev]",
        ),
        (
            "error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory",
            "celery_app_packages: [build-essential, python3-dev]",
        ),
        ("ERROR: Cannot find command 'git' - do you have it installed", "Write: celery_app_packages: [git]"),
        ("PermissionError: [Errno 13] Permission denied: '/srv/shop/releases/1/app/x'", "A release is read-only."),
        ("PermissionError: [Errno 13] Permission denied: 'shop.log'", "A release is read-only."),
        ("sqlite3.OperationalError: unable to open database file", "celery_app_shared"),
        (
            "LookupError: setuptools-scm was unable to detect version for /srv/shop/releases/1/app.",
            'celery_app_install_environment: {SETUPTOOLS_SCM_PRETEND_VERSION: "1.0"}',
        ),
        ("ModuleNotFoundError: No module named 'pkg_resources'", "Write: setuptools<81 (into"),
        ("OSError: [Errno 98] Address already in use", "opens a port when it is imported"),
        (
            "ERROR: Package 'shop' requires a different Python: 3.11.2 not in '>=3.12'",
            "Write: celery_app_python: ",
        ),
        (
            "RuntimeError: Unable to detect version control system. Checked: Git.",
            'celery_app_install_environment: {POETRY_DYNAMIC_VERSIONING_BYPASS: "1.0"}',
        ),
        ("You need to install the ephem library to use solar schedules.", "Write: celery[solar] (into"),
    ],
)
def test_what_is_known_to_be_behind_a_failure_is_said(said, words, tmp_path):
    with pytest.raises(ReleaseError) as error:
        build_command.run(["sh", "-c", f'echo "{said}"; exit 1'], "Installing", "", {}, 5, of_release=True)
    assert words in str(error.value)
    assert error.value.release_fault is ("celery_app_packages: [" not in words), "the host lacks them"


@pytest.mark.parametrize(("end", "words"), [("exit 3", "exited with 3"), ("kill -ILL $$", "was ended by signal 4")])
def test_a_command_that_fails_without_a_word_has_its_status_shown(end, words):
    with pytest.raises(ReleaseError, match=f"It printed nothing, and {words}"):
        build_command.run(["sh", "-c", end], "Importing shop", "", {}, 5, of_release=True)


def test_what_is_not_known_is_not_guessed():
    assert list(build_command.known_causes("PermissionError: [Errno 13] Permission denied: '/etc/shadow'")) == []
    assert list(build_command.known_causes("ERROR: No matching distribution found for celery==9")) == []


def test_the_reason_is_shown_however_much_follows_it():
    said = [
        "Collecting a", "ERROR: Cannot install a and b because these package versions have conflicting dependencies.",
        "The conflict is caused by:", "    a 1.0 depends on kombu<5.4", "    b 1.0 depends on kombu>=5.5", "",
    ]  # fmt: skip
    shown = build_command.reason("\n".join([*said, *(f"line {number}" for number in range(100))]))
    for line in said[1:5]:
        assert line in shown
    assert "line 99" in shown and "line 60" not in shown
