"""Every module works under any login: a umask of 077, the PATH of a user who became root by su, another language."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import PACKAGES
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "plugins/modules"
# One without a main is all action plugin, and runs on the control node.
ON_HOSTS = sorted(path.stem for path in MODULES.glob("*.py") if "\ndef main(" in path.read_text())


@pytest.mark.parametrize("name", ON_HOSTS)
def test_it_begins_with_surroundings_of_its_own(name):
    main = (MODULES / f"{name}.py").read_text().partition("\ndef main(")[2]
    assert "    take_over()\n" in main


@pytest.mark.parametrize("name", ON_HOSTS)
def test_what_it_imports_is_compiled_once_on_a_host(name):
    lines = (MODULES / f"{name}.py").read_text().splitlines()
    of_ansible = [line for line in lines if line.startswith(("import ansible", "from ansible"))]
    assert of_ansible[0].startswith("import ansible_collections.celery_ops.kit.plugins.module_utils.compiled ")


@pytest.mark.parametrize("name", ON_HOSTS)
def test_one_that_writes_files_says_which_disk_is_full(name):
    text = (MODULES / f"{name}.py").read_text()
    writes = re.search(r"\b(write_(atomically|new|json)|paths\.file|packages\.install|key_of_kit)\(", text)
    assert not writes or re.search(r"\breported\(module\)|\bexplain(ed)?\(|unusable\(", text)


OPTION = {"description", "type", "elements", "required", "default", "choices", "suboptions"}
RETURNED = {"description", "type", "elements", "returned", "sample", "contains"}


def unknown_keys(entries: dict[str, Any], known: set[str]) -> Iterator[str]:
    for name, entry in entries.items():
        yield from (f"{name}: {key}" for key in entry.keys() - known)
        yield from unknown_keys(entry.get("suboptions") or entry.get("contains") or {}, known)


@pytest.mark.parametrize("path", sorted(MODULES.glob("*.py")), ids=lambda path: path.stem)
def test_ansible_doc_can_read_its_documentation(path):
    """What `make sanity` would refuse: a comma or a colon in an unquoted text, for example, ends it."""
    text = path.read_text()
    parts = {name: yaml.safe_load(part) for name, part in re.findall(r'^([A-Z]+) = r"""\n(.*?)^"""', text, re.M | re.S)}
    assert list(unknown_keys(parts["DOCUMENTATION"].get("options") or {}, OPTION)) == []
    assert list(unknown_keys(parts.get("RETURN") or {}, RETURNED)) == []
    # It takes the name of what is assigned, and warns of several.
    assigned = [target for node in ast.parse(text).body if isinstance(node, ast.Assign) for target in node.targets]
    assert [target.lineno for target in assigned if not isinstance(target, ast.Name)] == []


def test_there_are_modules():
    assert len(ON_HOSTS) > 5


def test_what_they_begin_with(monkeypatch):
    login = {"PATH": "/usr/bin:/bin", "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de_DE:de", "PYTHONPATH": "/opt/lib"}
    for name, value in login.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        take_over()
        assert os.umask(before) == 0o022
    finally:
        os.umask(before)
    assert os.environ["PATH"].startswith("/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
    assert os.environ["LC_ALL"] == "C.UTF-8" and not {"LANGUAGE", "PYTHONPATH"} & os.environ.keys()


@pytest.mark.parametrize(("role", "package"), PACKAGES.items())
def test_a_role_installs_the_package_that_the_modules_ask_dpkg_for(role, package):
    install = yaml.safe_load((ROOT / f"roles/{role}/tasks/install.yml").read_text())[0]
    steps = install["celery_ops.kit.host_state"]["steps"]
    assert [step["packages"] for step in steps if "packages" in step] == [[package]]
