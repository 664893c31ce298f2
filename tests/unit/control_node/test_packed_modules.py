"""What Ansible has packed of the kit's modules is used by the next run of the same kit, and by no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.plugin_utils import packed_modules
from support.control import Run, run

MODULE = "ansible_collections.celery_ops.kit.plugins.modules.host_state"


@pytest.fixture
def plays(tmp_path):
    """Runs a playbook with a module of the kit on this machine, with a cache of its own."""
    path = tmp_path / "play.yml"
    pattern = "{{ lookup('celery_ops.kit.hosts', 'worker') }}"
    task = {"celery_ops.kit.host_state": {"steps": [{"directory": str(tmp_path)}]}, "check_mode": True}
    path.write_text(yaml.safe_dump([{"hosts": pattern, "gather_facts": False, "tasks": [task]}]))
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(yaml.safe_dump({"worker": {"hosts": {"here": {"ansible_connection": "local"}}}}))

    def plays() -> Run:
        return run(["ansible-playbook", "-i", str(hosts), str(path)], environment={"XDG_CACHE_HOME": str(tmp_path)})

    return plays


def kept(directory: Path) -> Path:
    """The module that was kept."""
    [found] = directory.glob(f"celery-ops/modules/*/{MODULE}-*")
    return found


def test_the_next_run_uses_it(plays, tmp_path):
    first = plays()
    assert first.rc == 0, first.text
    module = kept(tmp_path)
    packed = module.read_bytes()
    assert plays().rc == 0
    module.write_bytes(b"not what Ansible has packed")
    assert plays().rc != 0
    module.unlink()
    assert plays().rc == 0
    assert len(kept(tmp_path).read_bytes()) == len(packed)


def test_what_others_may_write_is_not_used(plays, tmp_path):
    assert plays().rc == 0
    module = kept(tmp_path)
    module.write_bytes(b"somebody else's")
    module.parent.chmod(0o777)
    assert plays().rc == 0


def test_each_version_of_the_kit_has_its_own(tmp_path):
    module, part = tmp_path / "modules/one.py", tmp_path / "module_utils/services/part.py"
    for path in (module, part):
        path.parent.mkdir(parents=True)
        path.write_text("")
    versions = [packed_modules.version_of(tmp_path)]
    for path in (module, part):
        path.write_text("changed = True")
        versions.append(packed_modules.version_of(tmp_path))
    assert len(set(versions)) == 3


def test_the_oldest_versions_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_modules, "is_shadowed", lambda: False)
    for number in range(packed_modules.KEPT + 3):
        version = tmp_path / "modules" / str(number)
        version.mkdir(parents=True)
        os.utime(version, (number, number))
    packed_modules.keep(version, tmp_path / "run", os.getpid())
    assert len(list((tmp_path / "modules").iterdir())) == packed_modules.KEPT
    assert version.is_dir()


def test_a_process_that_is_not_the_run_keeps_nothing(tmp_path):
    store, made = tmp_path / "modules/1", tmp_path / "run"
    for each in (store, made):
        each.mkdir(parents=True)
    (made / f"{MODULE}-ZIP_DEFLATED-none").write_text("half packed")
    packed_modules.keep(store, made, os.getpid() + 1)
    assert not list(store.iterdir())


def test_a_run_keeps_what_it_was_given_when_another_forgets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_modules, "is_shadowed", lambda: False)
    store, given = tmp_path / "modules/1", tmp_path / "run"
    for each in (store, given):
        each.mkdir(parents=True)
    name = f"{MODULE}-ZIP_DEFLATED-none"
    (store / name).write_text("packed")
    packed_modules.restore(store, given)
    (store / name).unlink()
    assert (given / name).read_text() == "packed"
