"""Every role and playbook keeps the habits of the kit."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml
from kit import PLAYBOOKS, ROLES, ROOT, all_tasks, load, tasks_of, tracked_files

SECRET = re.compile(r"password|secret(?!s_dir)|environment_text|cookie|_salt")
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def specs(role) -> dict:
    return load(role / "meta/argument_specs.yml")["argument_specs"]


def variables(role, part: str) -> dict:
    """The role's defaults or vars, which may be a file or a directory."""
    files = [role / part / "main.yml", *sorted(role.glob(f"{part}/main/*.yml"))]
    return {name: value for file in files for name, value in (load(file) or {}).items()}


@each_role
def test_defaults_and_argument_specs_say_the_same(role):
    defaults = variables(role, "defaults")
    assert set(specs(role)["main"].get("options", {})) == set(defaults)
    for entry in specs(role).values():
        for name, option in entry.get("options", {}).items():
            assert name in defaults or option.get("required"), f"{name} has no default and is not required"
            assert option.get("default") == defaults.get(name), f"{name}: the two defaults differ"


@each_role
def test_an_empty_default_passes_its_own_spec(role):
    """Ansible asks for the required keys of a mapping that is empty, too."""
    options = {name: option for entry in specs(role).values() for name, option in entry.get("options", {}).items()}
    empty = {name: option.get("options", {}) for name, option in options.items() if option.get("default") == {}}
    assert [name for name, keys in empty.items() if any(key.get("required") for key in keys.values())] == []


@each_role
def test_every_entry_point_and_variable_is_described(role):
    for entry_name, entry in specs(role).items():
        texts = {entry_name: entry["short_description"]} | {
            name: option.get("description", "") for name, option in entry.get("options", {}).items()
        }
        assert [name for name, text in texts.items() if len(text) < 10 or "TODO" in text] == []


@each_role
def test_every_file_says_something(role):
    """No variables file that is empty, no task file that is imported for a side effect."""
    assert [str(file.relative_to(role)) for file in role.rglob("*.yml") if not load(file)] == []


@pytest.mark.parametrize(
    "name", ["firewall", "flower", "monitoring", "preflight", "rabbitmq", "result_store", "supervisor"]
)
def test_it_knows_nothing_of_celery_and_of_other_roles(name):
    """It works in somebody else's playbook, with its inputs alone."""
    role = next(role for role in ROLES if role.name == name)
    private = [f"__{other.name}_" for other in ROLES if other != role]
    for file in (path for path in role.rglob("*") if path.is_file() and path.name != "README.md"):
        text = file.read_text()
        assert not re.search(r"celery_(?!ops\b)", text), file
        assert [start for start in private if start in text] == [], file
    roles = ("import_role", "include_role")
    assert [str(task) for task in tasks_of(role) if task.uses(*roles)] == []
    assert load(role / "meta/main.yml")["dependencies"] == []


@pytest.mark.parametrize(
    "name", ["firewall", "flower", "monitoring", "rabbitmq", "result_store", "supervisor", "celery"]
)
def test_its_page_shows_how_it_is_used_by_itself(name):
    by_hand = (ROOT / "roles" / name / "README.md").read_text().partition("<!-- Below:")[0]
    [play] = yaml.safe_load(re.search(r"```yaml\n(.*?)```", by_hand, re.DOTALL)[1])
    assert any(f"celery_ops.kit.{name}" in str(each) for each in play["roles"])


def test_examples_are_of_variables_that_there_are():
    known = {name for role in ROLES for name in specs(role)["main"].get("options", {})}
    assert set(load(ROOT / "docs/examples.yml")) <= known


@each_role
def test_every_entry_point_of_the_specs_has_a_task_file_and_every_tasks_from_is_described(role):
    files = {file.stem: file.read_text() for file in role.glob("tasks/*.yml")}
    used = {
        call["tasks_from"]
        for task in all_tasks()
        for module, call in task.body.items()
        if module.endswith(("import_role", "include_role"))
        and call["name"] == f"celery_ops.kit.{role.name}"
        and "tasks_from" in call
    }
    assert set(specs(role)) <= set(files)
    page = (role / "README.md").read_text().partition("## Entry points")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- `(\w+)` – ", page, re.M)) == {*specs(role), *used}
    assert [name for name in used if name not in specs(role) and not files[name].startswith("---\n# ")] == []


@each_role
def test_variables_carry_the_roles_name(role):
    public, private = set(variables(role, "defaults")), set(variables(role, "vars"))
    for task in tasks_of(role):
        private |= {task.body["register"]} if "register" in task.body else set()
        for module in ("set_fact", "ansible.builtin.set_fact"):
            private |= set(task.body.get(module, {})) - {"cacheable"}
    assert [name for name in public if not name.startswith(f"{role.name}_")] == []
    assert [name for name in private if not name.startswith(f"__{role.name}_")] == []


@each_role
def test_it_has_a_page_and_main_is_a_table_of_contents(role):
    assert role.name in (role / "README.md").read_text()
    for task in load(role / "tasks/main.yml"):
        assert any(module.endswith(("import_tasks", "include_tasks", "import_role")) for module in task), task


@each_role
def test_handlers_are_notified_and_notified_handlers_exist(role):
    handlers = {handler["name"] for handler in load(role / "handlers/main.yml") or []}
    notified = set()
    for task in tasks_of(role):
        notify = task.body.get("notify", [])
        notified |= {notify} if isinstance(notify, str) else set(notify)
    assert handlers == notified


def test_rendered_files_say_who_manages_them():
    templates = [path for path in tracked_files() if path.suffix == ".j2" and path.parts[-3] != "molecule"]
    templates = [path for path in templates if not path.name.endswith(".html.j2")]  # a page is no file of a host
    assert len(templates) > 5
    for template in templates:
        assert template.read_text().removeprefix("#!/bin/sh\n").startswith("{{ ansible_managed | comment"), template


def test_plays_become_root_by_themselves_and_never_on_the_control_node():
    for playbook in PLAYBOOKS:
        for play in load(playbook):
            if "import_playbook" not in play and "ansible.builtin.import_playbook" not in play:
                assert play.get("become", False) is ("localhost" not in play["hosts"]), (
                    f"{playbook.name}: {play['name']}"
                )
    delegated = [task for task in all_tasks() if task.body.get("delegate_to") == "localhost"]
    assert [str(task) for task in delegated if task.body.get("become") is not False] == []


def test_commands_of_sbin_have_their_path():
    """Root's PATH has no sbin after `su`; modules of the kit set their own."""
    of_sbin = {"rabbitmqctl", "rabbitmq-plugins", "rabbitmq-diagnostics", "runuser", "service", "nft", "visudo"}
    asked = [(task, task.body.get("ansible.builtin.command", {}).get("argv", [])) for task in all_tasks()]
    assert len([argv for _, argv in asked if argv]) > 5
    assert [str(task) for task, argv in asked if isinstance(argv, list) and of_sbin & {*map(str, argv)}] == []


def test_each_part_of_the_set_up_can_be_chosen_and_none_without_the_checks():
    tags = [play["tags"] for play in load(ROOT / "playbooks/site.yml")]
    assert tags == [
        ["always"],
        ["always"],
        ["rabbitmq", "result_store"],
        ["rabbitmq"],
        ["result_store"],
        ["supervisor"],
        ["monitoring"],
        ["flower"],
        ["deploy"],
        ["check"],
    ]


def test_logic_is_in_roles():
    lists = ("import_role", "include_role", "include_tasks", "assert", "debug", "fail")
    in_playbooks = [task for task in all_tasks() if task.file in PLAYBOOKS]
    assert [str(task) for task in in_playbooks if not task.uses(*lists)] == []


def test_no_shell_and_no_waiting_for_a_fixed_time():
    assert [str(task) for task in all_tasks() if task.uses("shell", "raw", "script", "pause")] == []
    assert [str(task) for task in all_tasks() if re.search(r"\bsleep\b", str(task.body))] == []


def test_what_looks_at_a_host_works_on_a_full_disk():
    looks = [f"celery_ops.kit.celery_{name}" for name in ("status", "doctor", "logs", "tasks", "delayed", "report")]
    found = [task for task in all_tasks() if task.uses(*looks)]
    assert len(found) >= len(looks)
    assert [str(task) for task in found if task.body.get("environment") != {"TMPDIR": "/run"}] == []


def test_requests_to_a_host_itself_go_by_no_proxy():
    requests = [task for task in all_tasks() if task.uses("uri")]
    assert requests
    assert [str(task) for task in requests if task.body["ansible.builtin.uri"].get("use_proxy") is not False] == []


def test_services_have_the_names_that_the_host_knows():
    services = [task for task in all_tasks() if task.uses("service", "systemd_service")]
    names = [str(body.get("name", "")) for task in services for body in task.body.values() if isinstance(body, dict)]
    assert names
    assert [name for name in names if "celery_ops" in name] == []


def test_every_command_says_when_it_changed_something():
    commands = [task for task in all_tasks() if task.uses("command", "expect", "celery_ops.kit.app_command")]
    assert [str(task) for task in commands if "changed_when" not in task.body] == []


def test_tasks_that_handle_secrets_show_nothing():
    quiet = ("import_role", "include_role", "import_tasks", "include_tasks", "assert", "debug", "fail")
    tasks = [task for task in all_tasks() if not task.uses(*quiet) and SECRET.search(str({**task.body, "name": ""}))]
    # `no_log: false` is a decision too, for a module that hides the secret itself; its comment says so.
    assert [f"{task}: add no_log: true" for task in tasks if "no_log" not in task.body] == []


def test_no_loop_goes_over_what_has_passwords():
    """Ansible shows the whole item of a loop that fails."""
    whole = re.compile(r"\{\{ *\w+_applications *\}\}")
    assert [str(task) for task in all_tasks() if whole.fullmatch(str(task.body.get("loop", "")))] == []


def test_modules_that_take_passwords_hide_them():
    modules = [path.read_text() for path in (ROOT / "plugins/modules").glob("*.py")]
    found = [option for text in modules for option in re.findall(r'"\w*password\w*": (\{.*?\})', text)]
    assert len(found) > 1
    assert [option for option in found if '"no_log": True' not in option] == []


def each_option(options: dict) -> Iterator[tuple[str, dict]]:
    """Options and those inside them."""
    for name, option in options.items():
        yield name, option
        yield from each_option(option.get("options", {}))


def test_secrets_are_marked_in_the_specs():
    options = [pair for role in ROLES for pair in each_option(specs(role)["main"].get("options", {}))]
    secret = [(name, option) for name, option in options if SECRET.search(name)]
    assert len(secret) > 2
    assert [f"{name} wants no_log: true" for name, option in secret if option.get("no_log") is not True] == []


def test_a_yes_or_no_is_asked_for_as_one():
    """From an INI inventory or from -e it is text, and the text "false" is true to Jinja."""
    options = [
        option for role in ROLES for entry in specs(role).values() for option in entry.get("options", {}).items()
    ]
    names = "|".join(sorted({name for name, option in options if option.get("type") == "bool"}))
    condition = re.compile(
        rf"(?:\b(?:if|elif|not|and|or)|when:|that:|^ *-) +\(?({names})\b(?!:)(?! \|(?: default\(\w+\) \|)? bool\b)"
    )
    files = [
        file for role in ROLES for part in ("tasks", "vars", "templates") for file in sorted(role.glob(f"{part}/*"))
    ]
    assert [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in [*files, *PLAYBOOKS]
        for line in file.read_text().splitlines()
        if condition.search(line)
    ] == []
