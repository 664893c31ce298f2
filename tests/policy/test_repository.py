"""The repository as a whole: locks, paths, and tests that really are there."""

from __future__ import annotations

import configparser
import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import GROUPS
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.command_line import OF_PLAYBOOKS
from kit import PLAYBOOKS, ROLES, ROOT, load, tracked_files

# What has a requirements.in is locked; tests/apps are other people's applications, as they come.
LOCKS = [path for path in tracked_files() if path.name == "requirements.txt" and "tests/apps" not in str(path)]
PLAYBOOK = re.compile(r"(?<!\w/)playbooks/(\w+)\.yml")
SCENARIOS = [path for path in sorted((ROOT / "molecule").iterdir()) if path.name != "shared"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_locks_pin_every_package_by_hash_and_name_no_index(lock):
    text = lock.read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert pins
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|https?://", text)


def test_no_file_names_the_directory_it_was_written_in():
    here = f"{ROOT}/".encode()
    assert [str(path) for path in tracked_files() if here in path.read_bytes()] == []


def verified_by(scenario: Path) -> Path:
    """The directory of the tests that a scenario runs."""
    default = load(ROOT / ".config/molecule/config.yml")["verifier"]["directory"]
    verifier = load(scenario / "molecule.yml").get("verifier") or {}
    return (scenario / verifier.get("directory", default)).resolve()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_scenario_has_hosts_and_tests(scenario):
    assert load(scenario / "molecule.yml")["platforms"]
    assert list(verified_by(scenario).glob("test_*.py"))


def test_ci_runs_every_test_and_make_test_runs_what_ci_runs():
    ci, run = ROOT / ".ci/run", (ROOT / "tests/run").read_text()
    assert os.access(ci, os.X_OK)
    assert ci.read_text().split() == ["#!/bin/sh", "exec", "make", "test"]
    assert re.search(r"^test: .*\n\ttests/run$", (ROOT / "Makefile").read_text(), re.M)
    parts = dict(re.findall(r'^    \[(\w+)\]="(.*)"$', run, re.M))
    phases = re.search(r'for part in "\$\{@:-(.*?)\}"', run)[1].split()
    assert "$(basename -a molecule/*/ | sed '/shared/d; s/^/scenario /'" in parts["molecule"] and "molecule" in phases
    words = " ".join(parts[phase] for phase in phases if "pytest" in parts[phase]).split()
    run_by_pytest = [ROOT / word for word in words if (ROOT / word).is_dir()]
    config = configparser.ConfigParser()
    config.read(ROOT / "pytest.ini")
    assert {str(path.relative_to(ROOT)) for path in run_by_pytest} == set(config["pytest"]["testpaths"].split())
    covered = [*run_by_pytest, *map(verified_by, SCENARIOS)]
    files = [path for path in tracked_files() if path.name.startswith("test_") and path.suffix == ".py"]
    left_out = {path.parent for path in files if not any(path.is_relative_to(place) for place in covered)}
    assert left_out == {ROOT / "tests/matrix"}, "make matrix runs that one"


def test_every_playbook_is_a_verb_of_the_readme_and_every_playbook_named_anywhere_exists():
    stems = {path.stem for path in PLAYBOOKS}
    verbs = (ROOT / "README.md").read_text().partition("## The verbs")[2].partition("\n## ")[0]
    listed = set(re.findall(r"playbooks/(\w+)\.yml", verbs)) | ({"uninstall"} if "make down" in verbs else set())
    assert listed == stems
    sources = [path for path in tracked_files() if path.suffix in (".md", ".py", ".yml")]
    named = {(path, name) for path in sources for name in re.findall(PLAYBOOK, path.read_text(errors="replace"))}
    assert len(named) > 20
    assert [f"{path}: {name}" for path, name in named if name not in stems and path.name != "CHANGELOG.md"] == []


def test_every_variable_of_a_command_to_type_exists_and_may_have_that_value():
    choices: dict[str, set[str]] = {}
    for role in ROLES:
        for entry_point in load(role / "meta/argument_specs.yml")["argument_specs"].values():
            for name, option in (entry_point.get("options") or {}).items():
                choices.setdefault(name, set()).update(map(str, option.get("choices") or ()))
    defaults = "".join(path.read_text() for role in ROLES for path in role.glob("defaults/main/*.yml"))
    also = set(re.findall(r"On the command line also: (\w+)\.", defaults))
    also |= set(re.findall(r"\b(?:rabbitmq_move|uninstall)_\w+", "".join(path.read_text() for path in PLAYBOOKS)))
    pages = [path for path in tracked_files() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    typed = {
        (str(path.relative_to(ROOT)), *found)
        for path in [*pages, *PLAYBOOKS]
        for found in re.findall(r"-e [\"']?(\w+)=([\w.<]*)", path.read_text())
    }
    assert len(typed) > 50
    assert [one for one in typed if one[1] not in {*choices, *also}] == []
    wrong = [one for one in typed if choices.get(one[1]) and one[2].rstrip(".") not in choices[one[1]]]
    assert wrong == []


def test_every_variable_that_a_page_names_exists():
    specs = [load(role / "meta/argument_specs.yml")["argument_specs"] for role in ROLES]
    known = {name for spec in specs for entry_point in spec.values() for name in entry_point.get("options") or {}}
    known |= {*OF_PLAYBOOKS, *(f"celery_{group}" for group in GROUPS)}
    known |= {path.stem for path in [*PLAYBOOKS, *ROOT.glob("plugins/*/*.py")]}
    roles = "|".join(role.name for role in ROLES)
    # celery_ops_ and rabbitmq_global_ are metrics'.
    name = re.compile(rf"(?<![\w/.-])(?!celery_ops|rabbitmq_global_)((?:{roles})_[a-z_]*[a-z])(?![\w*]|_?\*)")
    pages = [path for path in tracked_files() if path.suffix == ".md" and path.name != "CHANGELOG.md"]
    code = {page: re.findall(r"```.*?```|`[^`]+`", page.read_text(), re.S) for page in pages}
    named = {
        (str(page.relative_to(ROOT)), one) for page, texts in code.items() for one in name.findall(" ".join(texts))
    }
    assert len(named) > 200
    assert [f"{page}: {one}" for page, one in named if one not in known] == []


def test_each_place_that_the_architecture_names_exists():
    text = (ROOT / "docs/architecture.md").read_text()
    questions = text.partition("## Where is ...?")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| [^|]+\? \| `([\w/.]+)`", questions, re.M)
    assert len(answers) >= 12
    assert [path for path in answers if not (ROOT / path).exists()] == []


def test_each_path_of_the_repository_that_a_page_names_exists():
    directories = "playbooks|plugins|roles|runtime|templates|tests|molecule|docs|bench|app"
    path = re.compile(rf"(?<![\w/.<>-])((?:{directories})/[\w/.-]*\w)")
    pages = [page for page in tracked_files() if page.suffix == ".md" and page.name != "CHANGELOG.md"]
    named = {(str(page.relative_to(ROOT)), name) for page in pages for name in path.findall(page.read_text())}
    assert len(named) > 50
    assert [f"{page}: {name}" for page, name in named if not (ROOT / name).exists()] == []


def test_pages_that_messages_name_are_there_and_have_what_they_are_named_for():
    told = re.compile(r"(docs/[\w/-]+\.md)(?:(?:,|:) ([A-Z][\w' ]+))?")
    sources = [path for path in tracked_files() if path.suffix in (".py", ".j2", ".yml") and "tests" not in path.parts]
    texts = {path: re.sub(r'"\n\s*f?"', "", path.read_text()) for path in sources}
    named = {(path, *found) for path, text in texts.items() for found in told.findall(text)}
    assert len(named) > 20
    pages = {page for _, page, _ in named if (ROOT / page).exists()}
    assert [f"{path}: {page}" for path, page, _ in named if page not in pages] == []
    text = {page: (ROOT / page).read_text() for page in pages}
    assert [f"{path}: {page}, {part}" for path, page, part in named if part not in text[page]] == []


def test_make_has_each_target_that_a_page_types():
    targets = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    typed = {
        (str(page.relative_to(ROOT)), name)
        for page in pages
        for name in re.findall(r"(?:^|`)(?:\w+=\w+ )?make ([a-z]\w*)", page.read_text(), re.M)
    }
    assert len(typed) > 10
    assert [one for one in typed if one[1] not in targets] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_to_a_file_and_a_heading_that_are_there():
    found, broken = 0, []
    for page in (path for path in tracked_files() if path.suffix == ".md"):
        for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())):
            if re.match(r"\w+:", target):
                continue
            found += 1
            file = (page.parent / target).resolve() if target else page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert found > 50
    assert broken == []


def test_each_row_of_a_table_has_the_columns_of_its_head():
    """A bar in a cell, in code as well, begins another column: it is written with a backslash."""
    found, wrong = 0, []
    for page in (path for path in tracked_files() if path.suffix == ".md"):
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
            head, *rows = ((row, len(re.findall(r"(?<!\\)\|", row))) for row in table.splitlines())
            found += 1
            wrong += [f"{page.relative_to(ROOT)}: {row}" for row, columns in rows if columns != head[1]]
    assert found > 50
    assert wrong == []


def test_no_page_has_a_placeholder_that_a_browser_takes_for_html():
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    texts = {page: re.sub(r"^```.*?^```|`[^`]*`", "", page.read_text(), flags=re.M | re.S) for page in pages}
    wrong = {page: re.findall(r"(?<!\\)<\w[\w ]*>", text) for page, text in texts.items()}
    assert {str(page.relative_to(ROOT)): found for page, found in wrong.items() if found} == {}


def test_tests_that_the_pages_name_are_there():
    pages = [path for path in tracked_files() if path.suffix == ".md"]
    named = {(page, name) for page in pages for name in re.findall(r"\b([\w/]*test_\w+\.py)\b", page.read_text())}
    there = [f"/{path.relative_to(ROOT)}" for path in tracked_files()]
    assert len(named) > 20
    assert [f"{page}: {name}" for page, name in named if not any(path.endswith(f"/{name}") for path in there)] == []


def test_the_version_is_the_same_everywhere():
    newest = re.search(r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    runtime = re.search(r'^__version__ = "(.*)"$', (ROOT / "runtime/celery_ops/__init__.py").read_text(), re.M)[1]
    [built] = re.findall(r"celery_ops-kit-([\d.]+)\.tar\.gz", (ROOT / "README.md").read_text())
    assert newest == runtime == built == load(ROOT / "galaxy.yml")["version"]


def test_the_collection_leaves_out_what_git_ignores():
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    patterns = [*load(ROOT / "galaxy.yml")["build_ignore"], "*.pyc"]  # Ansible leaves these out by itself

    def is_left_out(path: str) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)

    # At the top, or beside an inventory.
    assert [name for name in ignored if not is_left_out(name) and not is_left_out(f"inventories/shop/{name}")] == []


def test_an_idle_ssh_connection_shows_that_it_lives_and_is_used_again():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "ansible.cfg")
    options = config["ssh_connection"]["ssh_args"]
    assert int(re.search(r"-o ServerAliveInterval=(\d+)", options)[1]) <= 60
    assert int(re.search(r"-o ServerAliveCountMax=(\d+)", options)[1]) > 1
    assert {"ControlMaster=auto", "ControlPersist=60s"} <= set(options.split())


@pytest.mark.parametrize("writer", ["docs/variables.py", "bench/page.py"])
def test_generated_pages_are_current(writer):
    check = subprocess.run((sys.executable, ROOT / writer, "--check"), capture_output=True, text=True, check=False)
    assert check.returncode == 0, f"{check.stdout}{check.stderr}Type: python3 {writer}"


def test_every_place_that_says_which_ansible_it_takes_says_the_same():
    oldest = {load(role / "meta/main.yml")["galaxy_info"]["min_ansible_version"] for role in ROLES}
    environment = load(ROOT / "meta/execution-environment.yml")["dependencies"]["ansible_core"]["package_pip"]
    said = {load(ROOT / "meta/runtime.yml")["requires_ansible"], environment.removeprefix("ansible-core")}
    assert {text.removeprefix(">=").removesuffix(".0") for text in said} == oldest
    [refused] = re.findall(r"needs ([\d.]+) or newer", (ROOT / "plugins/lookup/hosts.py").read_text())
    [page] = re.findall(r"ansible-core ([\d.]+) or newer", (ROOT / "README.md").read_text())
    assert {refused, page} == oldest
