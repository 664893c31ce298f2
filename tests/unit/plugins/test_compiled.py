"""What a module imports is compiled once on a host; tests/infra finds it used on one."""

import json
import marshal
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import compiled

HERE = Path("ansible_collections/celery_ops/kit/plugins/module_utils")
KIT = Path(compiled.__file__).parent
PROBE = """
import json, sys
from importlib import import_module
from pathlib import Path
archive, store = sys.argv[1:3]
sys.path.insert(0, archive)
from ansible_collections.celery_ops.kit.plugins.module_utils import compiled
compiled.use(archive, Path(store) if store else None)
package, module = import_module("shop"), import_module("shop.prices")
print(json.dumps({"said": module.said(), "files": [package.__file__, module.__file__]}))
"""


TEXT = "from shop.words import WORD\n\n\ndef said():\n    return WORD\n"


@pytest.fixture
def call(tmp_path):
    """Import a package from a zip in a process of its own, as a module's call does; returns what its code says."""

    def run(store, word="first"):
        archive = tmp_path / "payload.zip"
        with zipfile.ZipFile(archive, "w") as packed:
            for parent in [HERE, *list(HERE.parents)[:-1]]:
                packed.writestr(f"{parent}/__init__.py", "")
            for name in ("compiled.py", "layout.py"):
                packed.write(KIT / name, HERE / name)
            for name, text in {"__init__": "", "words": f"WORD = {word!r}\n", "prices": TEXT}.items():
                packed.writestr(f"shop/{name}.py", text)
        command = [sys.executable, "-c", PROBE, archive, store]
        answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        assert answer["files"] == [f"{archive}/shop/__init__.py", f"{archive}/shop/prices.py"]
        return answer["said"]

    return run


@pytest.fixture
def store(tmp_path):
    directory = tmp_path / "store"
    directory.mkdir()
    return directory


def test_what_was_compiled_before_is_used(call, store):
    assert call(store) == "first"
    kept = {path: path.read_bytes() for path in store.iterdir()}
    assert len(kept) == 3
    [words] = [path for path, content in kept.items() if b"first" in content]
    words.write_bytes(kept[words].replace(b"first", b"other"))
    assert call(store) == "other", "it was compiled again"


def test_another_text_is_another_file(call, store):
    assert [call(store), call(store, "second"), call(store)] == ["first", "second", "first"]
    assert len(list(store.iterdir())) == 4


@pytest.mark.parametrize("content", [b"", b"no code", marshal.dumps("no code")])
def test_what_is_damaged_is_compiled_again(call, store, content):
    call(store)
    before = {path: path.read_bytes() for path in store.iterdir()}
    for path in before:
        path.write_bytes(content)
    assert call(store) == "first"
    assert {path: path.read_bytes() for path in store.iterdir()} == before


def test_without_a_place_everything_is_compiled(call, store):
    assert call("") == "first"
    assert not list(store.iterdir())


def test_what_earlier_versions_have_left_goes(store, monkeypatch):
    monkeypatch.setattr(compiled, "MOST", 2)
    for name in "abc":
        compiled.keep(store, name, b"")
    assert [path.name for path in store.iterdir()] == ["c"]


def test_a_small_file_system_is_left_to_others(store, monkeypatch):
    compiled.keep(store, "a", b"there is room")
    seen = os.statvfs(store)
    monkeypatch.setattr(compiled, "LEAST", seen.f_bavail * seen.f_frsize * 2)
    compiled.keep(store, "b", b"there is none")
    assert [path.name for path in store.iterdir()] == ["a"]


def test_nobody_reads_half_of_what_is_kept(store):
    compiled.keep(store, "a", b"old")
    with (store / "a").open("rb") as file:
        compiled.keep(store, "a", b"new")
        assert file.read() == b"old"
    assert (store / "a").read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid(), reason="what is not root's is not used")
def test_a_place_that_others_can_write_to_is_not_used(tmp_path):
    place, state = tmp_path / "run/.compiled", tmp_path / "state"
    assert compiled.store_on(place, state) is None and not place.parent.exists(), "the kit is not set up here"
    state.mkdir()
    place.parent.mkdir()
    assert compiled.store_on(place, state) == place
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o770)
    assert compiled.store_on(place, state) is None
    place.rmdir()
    place.symlink_to(state)
    assert compiled.store_on(place, state) is None
