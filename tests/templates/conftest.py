"""Renders the kit's templates as Ansible does, from the roles' own defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, generate_ansible_template_vars, trust_as_template
from ansible_collections.celery_ops.kit.plugins.action.celery_programs import argument
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import BUILD, Deployment
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import environment_of, environment_text
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import Program, Programs, prefixes_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables

ROOT = Path(__file__).resolve().parents[2]
FACTS = {
    "nodename": "host1",
    "service_mgr": "systemd",
    "distribution": "Debian",
    "distribution_major_version": "13",
    "python": {"version": {"major": 3, "minor": 13}},
    "memtotal_mb": 4096,
    "processor_vcpus": 2,
}
GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")


@cache
def role_variables() -> dict[str, Any]:
    """Every role's defaults and private variables, as they are for the one host of the local inventory."""
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for role in sorted((ROOT / "roles").iterdir()):
        for part in ("defaults", "vars"):
            for file in [*role.glob(f"{part}/main.yml"), *sorted(role.glob(f"{part}/main/*.yml"))]:
                variables |= loader.load_from_file(str(file), trusted_as_template=True) or {}
    return variables | {
        "ansible_facts": FACTS,
        "ansible_check_mode": False,
        "inventory_hostname": "host1",
        "group_names": list(GROUPS),
        "groups": {"all": ["host1"]} | {group: ["host1"] for group in GROUPS},
        "hostvars": {"host1": {}},
        "role_path": str(ROOT / "roles" / "any"),
        "inventory_dir": "/nowhere",
        "celery_app_broker_password": "of-the-broker",
        "celery_app_result_store_password": "of-the-store",
        "__supervisor_users": {"from_kit": [], "foreign_programs": []},
        "__celery_app_source": {"id": "0123456789ab"},
        "__celery_app_build": {"python": "3.13", "listener": "/srv/petct/listeners/0123456789ab"},
    }


def templar_with(**variables: Any) -> Templar:
    """Ansible's templar over the roles' variables, some of them replaced."""
    return Templar(loader=DataLoader(), variables=role_variables() | variables)


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., Any]:
    """A function that returns what a variable (or any expression) holds, some variables replaced."""

    def value(expression: str, **variables: Any) -> Any:
        return templar_with(**variables).evaluate_expression(trust_as_template(expression))

    return value


@pytest.fixture(scope="session")
def render() -> Callable[..., str]:
    """A function that renders a template file of the kit, some variables replaced."""

    def text(path: Path, **variables: Any) -> str:
        templar = templar_with(**generate_ansible_template_vars(str(path), fullpath=str(path)), **variables)
        return templar.template(trust_as_template(path.read_text()), preserve_trailing_newlines=True)

    return text


def variables_with(**variables: Any) -> Variables:
    """The roles' variables as plugins on the control node read them, some replaced."""
    return Variables(role_variables() | variables, templar_with(**variables).template)


@pytest.fixture(scope="session")
def programs() -> Callable[..., dict[str, Program]]:
    """A function that returns the programs of a phase under the names of generations, some variables replaced."""

    def built(phase: str, **variables: Any) -> dict[str, Program]:
        known = variables_with(**variables)
        builders = Programs(known, Deployment.of_run(known), known[BUILD]).of(phase)
        return {program: make(f"{program}-01234567") for program, make in builders.items()}

    return built


@pytest.fixture(scope="session")
def arguments() -> Callable[..., dict[str, dict[str, Any]]]:
    """A function that returns the programs of a phase as the module takes them, some variables replaced."""

    def made(phase: str, **variables: Any) -> dict[str, dict[str, Any]]:
        known, templar = variables_with(**variables), templar_with(**variables)
        builders = Programs(known, Deployment.of_run(known), known[BUILD]).of(phase)
        prefixes = prefixes_of(known, phase)
        return {program: argument(program, make, prefixes, templar) for program, make in builders.items()}

    return made


@pytest.fixture(scope="session")
def environment() -> Callable[..., str]:
    """A function that returns the text of the environment file, some variables replaced."""
    return lambda **variables: environment_text(environment_of(variables_with(**variables)))
