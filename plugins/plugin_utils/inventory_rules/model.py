"""What the rules look at - hosts with their variables, and the inventory around them - and how a mistake is put."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import BOOLEANS, boolean
from ansible.template import trust_as_template
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import APP_GROUPS, GROUPS
from ansible_collections.celery_ops.kit.plugins.plugin_utils.ip import address_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rabbitmq_cluster import cluster_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.result_store import store_members
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import password_files
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables, path_of

ROOT = Path(__file__).resolve().parents[3]
OWN_SERVICE = {"rabbitmq": ("celery_app_broker_url", ""), "result_store": ("celery_app_result_backend", "redis")}
"""By group, the variable that names a service of somebody else, and its value where the group's is used."""

ARGUMENT = 128 << 10
"""Bytes of an argument or of a variable (NAME=value) with which Linux still starts a program: its MAX_ARG_STRLEN."""
RENAMED_CHOICES = {"one_by_one": "rolling"}
"""Values of earlier versions, and what they are called now."""


class Mistake(NamedTuple):
    """One thing that is wrong: the variable (or group) it is about, and all that an operator has to know."""

    variable: str
    text: str


def wrong(variable: str, value: Any, problem: str, write: Any) -> Mistake:
    """A mistake in words: variable, value, what is wrong, and the value to write."""
    return Mistake(variable, f"{variable} is {shown(value)}: {problem} Write: {variable}: {write}")


def shown(value: Any) -> str:
    """A value as YAML's flow style has it, cut to a line; an address without the login in it."""
    text = re.sub(r"//[^/@\s\"]+@", "//********@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 100 else f"{text[:97]}..."


def bytes_of(text: Any) -> int:
    """The bytes of a text where a program gets it, the NUL at its end included."""
    return len(str(text).encode("utf-8", "surrogateescape")) + 1


def nearest(name: Any, known: Iterable[str]) -> str:
    """The one of the known names that was probably meant; the first when none is near."""
    known = list(known)
    return (difflib.get_close_matches(str(name), known, 1, 0.6) or known)[0]


def not_among(value: Any, choices: Sequence[str]) -> tuple[str, str]:
    """What to say of a value that is none of the choices, and the one to write."""
    if (new := RENAMED_CHOICES.get(str(value))) in choices:
        return f"it is called {new} now.", new
    return f"it may be {', '.join(choices)}; {did_you_mean(value, choices)}", nearest(value, choices)


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """A question that names the nearest of the known names, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"available: {', '.join(known)}."


def is_int(value: Any) -> bool:
    """Whether it is a whole number, or text that Ansible takes for one (`-e` makes everything text)."""
    if isinstance(value, str):
        return bool(re.fullmatch(r"-?[0-9]{1,18}", value))  # Python reads no number of some thousand digits
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number, or text that Ansible takes for one."""
    return is_int(value) or isinstance(value, float) or bool(re.fullmatch(r"-?[0-9]*\.?[0-9]+", str(value)))


TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", is_int),
    "float": ("a number", is_number),
    "bool": ("true or false", lambda value: str(value).lower() in BOOLEANS),
    "str": ("text", lambda value: isinstance(value, (str, int, float)) and not isinstance(value, bool)),
    "path": ("a path", lambda value: isinstance(value, str)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "raw": ("a command, or a list of commands", lambda value: isinstance(value, (str, list))),
    "dict": ("a mapping of names to values", lambda value: isinstance(value, Mapping)),
}


def type_of(variable: str, value: Any, spec: Mapping[str, Any]) -> Iterator[Mistake]:
    """What the argument spec says against a value. Stricter than Ansible, which makes a list of any text."""
    kind, fits = TYPES[spec.get("type", "str")]
    default = spec.get("default")
    write = f"'{default}'" if isinstance(default, str) and ("{{" in default or not default) else shown(default)
    if value is None:
        yield Mistake(variable, f"{variable} has no value. Write: {variable}: {write}")
    elif not fits(value):
        if kind == "a list" and isinstance(value, str):
            write = shown(value.split())
        text = f"{variable} is {'hidden' if spec.get('no_log') else shown(value)}: it has to be {kind}."
        yield Mistake(variable, f"{text} Write: {variable}: {write}")
    elif "choices" in spec and value not in spec["choices"]:
        yield wrong(variable, value, *not_among(value, spec["choices"]))
    elif kind == "a list" and spec.get("elements") == "str":
        fits = TYPES["str"][1]
        write = shown(
            [str(item).lower() if isinstance(item, bool) else str(item) for item in value if item is not None]
        )
        for item in value:  # such as one with nothing behind its dash
            if not fits(item):
                yield Mistake(
                    variable, f"{variable} has {shown(item)}: each has to be text. Write: {variable}: {write}"
                )


def _specs() -> list[Path]:
    return sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Every variable that a role declares, with its spec."""
    return {
        name: option
        for file in _specs()
        for entry in yaml.load(file.read_text(), yaml.CSafeLoader)["argument_specs"].values()
        for name, option in entry.get("options", {}).items()
    }


@cache
def prefixes() -> tuple[str, ...]:
    """The starts of variable names that belong to our roles."""
    return tuple(f"{file.parents[1].name}_" for file in _specs())


def trusted(value: Any) -> Any:
    """`value`, which is a role's own, so that Ansible evaluates the templates in it."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return {key: trusted(item) for key, item in value.items()} if isinstance(value, dict) else value


@dataclass
class Host:
    """A host with its variables; a value is evaluated when it is first asked for.

    `given` are the variables that the inventory sets itself, as they stand there.
    """

    name: str
    given: Mapping[str, Any]
    groups: frozenset[str] = frozenset(GROUPS)
    evaluate: Callable[[Any], Any] = field(default=lambda value: value, repr=False)
    unreadable: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict, repr=False)

    def share_values(self, twins: dict[str, Host], is_template: Callable[[Any], bool]) -> None:
        """Reuse the values of a host with the same variables in the same groups, as most hosts of a fleet are.

        A template may say something else on every host; then there is no twin.
        """
        settings = {name: self.given[name] for name in declared() if name in self.given}
        plain = {name: value for name, value in settings.items() if not declared()[name].get("no_log")}
        if not any(map(is_template, plain.values())):
            twin = twins.setdefault(repr((sorted(self.groups), self.given.get("inventory_dir"), plain)), self)
            self.values, self.unreadable = twin.values, twin.unreadable

    def __getitem__(self, variable: str) -> Any:
        """Its value, the role's default included; None where that can't be evaluated or has the wrong type."""
        if variable not in self.values:
            self.values[variable] = self._value(variable)
        return self.values[variable]

    def _value(self, variable: str) -> Any:
        spec = declared()[variable]
        try:
            value = self.evaluate(self.given.get(variable, trusted(spec.get("default"))))
        except AnsibleError as error:
            self.unreadable[variable] = " ".join(str(error).split())
            return None
        return None if list(type_of(variable, value, spec)) else value

    def need(self, variable: str) -> Any:
        """Its value. Raises AnsibleError where there is none."""
        if self[variable] is None:
            raise AnsibleError(f"{variable} has no value: {self.unreadable.get(variable, 'it has another type')}")
        return self[variable]

    def int(self, variable: str) -> int | None:
        """Its value as a number; None where there is none."""
        return None if self[variable] is None else int(self[variable])

    def text(self, variable: str) -> str:
        """Its value as text; "" where there is none."""
        return "" if self[variable] is None else str(self[variable])

    def directory(self, variable: str) -> Path:
        """Its value as a directory of the control node."""
        return path_of(self.text(variable)).absolute()

    def true(self, variable: str) -> bool:
        """Its value as a yes or no."""
        return boolean(self.text(variable), strict=False)

    @cached_property
    def known(self) -> Mapping[str, Any]:
        """What the inventory says of it, evaluated; None for what can't be."""

        def evaluate(value: Any) -> Any:
            try:
                return self.evaluate(value)
            except AnsibleError:
                return None

        return Variables(self.given, evaluate)

    @cached_property
    def machine(self) -> str:
        """What two names for one machine have in common."""
        local = self.known.get("ansible_connection") == "local"
        return address_of("localhost" if local else self.name, self.known)

    @property
    def runs_app(self) -> bool:
        """Whether a program of the application runs here."""
        return bool(self.groups & APP_GROUPS)

    def uses_group(self, group: str) -> bool:
        """Whether its broker or result store is that of the group, and not one of somebody else."""
        variable, ours = OWN_SERVICE[group]
        return (self.service(variable) or ours) == ours

    def service(self, variable: str) -> str:
        """The address of a service of somebody else, as it stands there where evaluating it would make a password."""
        value = self.given.get(variable)
        is_made = any(not file.exists() for file in password_files(value, self.evaluate))
        known = value if is_made else self.known.get(variable)
        return str((value if known is None else known) or "")

    @property
    def web_port(self) -> int | None:
        """The port of its web program, if it is to run one."""
        port = self.text("celery_web_bind").rpartition(":")[2]
        return int(port) if "web" in self.groups and self["celery_web_command"] and port.isdigit() else None


@dataclass
class Inventory:
    """The hosts that a run is about, the other hosts of our groups, and what was said with `-e` and `--limit`.

    `groups` are by their plain names, before which the inventory may have a `prefix`. `action` is what the run does to
    the application: deploy or rollback.
    """

    hosts: list[Host]
    groups: Mapping[str, list[str]]
    others: list[Host] = field(default_factory=list)
    said_by_run: frozenset[str] = frozenset()
    action: str = "deploy"
    limit: str = ""
    prefix: str = ""

    def called(self, group: str) -> str:
        """The name that a group has in the inventory."""
        return f"{self.prefix}{group}"

    def members(self, group: str) -> list[str]:
        """The hosts of a group; none when there is no such group."""
        return list(self.groups.get(group, []))

    @cached_property
    def cluster(self) -> list[str]:
        """The hosts that form a RabbitMQ cluster; none where each broker is alone."""
        given = {host.name: host.known for host in [*self.hosts, *self.others]}
        return cluster_members(self.groups, lambda name: given.get(name, {}))

    @cached_property
    def stores(self) -> list[str]:
        """The hosts that keep the results together; none where each result store is alone."""
        given = {host.name: host.known for host in [*self.hosts, *self.others]}
        return store_members(self.groups, lambda name: given.get(name, {}))

    def server(self, group: str, host: Host) -> Host | None:
        """The broker or result store that a host uses: its own, or the group's first; None for somebody else's.

        The first stands for all nodes of a cluster.
        """
        if not host.uses_group(group):
            return None
        is_own = group in host.groups and not (self.cluster if group == "rabbitmq" else self.stores)
        name = host.name if is_own else (self.members(group) or [""])[0]
        return next((other for other in [*self.hosts, *self.others] if other.name == name), None)

    def fleet(self, host: Host) -> tuple[str, str]:
        """What the hosts of one application's fleet have in common: its name and the broker."""
        return host.text("celery_app_name"), self.broker(host)

    def broker(self, host: Host) -> str:
        """What the hosts that use one broker have in common; it may be a secret."""
        if not host.uses_group("rabbitmq"):
            return host.service("celery_app_broker_url")
        server = self.server("rabbitmq", host)
        return (
            server.name
            if server and "celery_app_broker_host" not in host.given
            else host.text("celery_app_broker_host")
        )

    @property
    def example(self) -> str:
        """A host's name to write in a group."""
        return self.hosts[0].name if self.hosts else "local"
