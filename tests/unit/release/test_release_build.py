"""A release is built on a host, really: the import as the application's user, its files, what is then damaged."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import listeners
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Release
from ansible_collections.celery_ops.kit.plugins.modules import release
from support.release_host import APP, like, make_wheel

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for runuser"),
    pytest.mark.usefixtures("conf_d", "no_settings_of_another"),
]
ROOT = Path(__file__).resolve().parents[3]


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


def migrations(*commands):
    return [{"line": shlex.join(words), "words": words} for words in commands]


def test_a_migration_that_fails_is_the_releases_fault_unless_the_host_is_to_blame(built):
    for script, fault in {
        "echo no such column >&2; exit 1": True,
        "echo Connection refused >&2; exit 1": False,
        "kill -9 $$": False,
    }.items():
        assert built.fail(archive=False, migrate=migrations(["true"], ["sh", "-c", script])).release_fault is fault


def test_a_full_disk_of_a_german_host_is_not_the_releases_fault(built, login):
    login(LANGUAGE="de_DE:de")
    error = built.fail(archive=False, migrate=migrations(["true"], ["cp", "/proc/self/status", "/dev/full"]))
    assert not error.release_fault and "No space left on device" in str(error)


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


def test_a_host_without_a_web_program_does_not_install_the_listener_again(built, monkeypatch):
    monkeypatch.setattr(release, "CONF_D", built.releases.base / "conf.d")
    release.point(built.releases.base / "current", f"releases/{built.packed['id']}")
    release.prune(built.releases, 5)
    assert built.build(archive=False)["changed"] is False


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
