"""Rules for a host's variables, each by itself: type, bounds, form, and what the control node has to hold."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.celery_ops.kit.plugins.action.release_source import is_git
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import PYTHON, READY_TIMEOUT
from ansible_collections.celery_ops.kit.plugins.module_utils.notices import EVENTS, WATCHDOG
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import version_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.addresses import ADDRESSES
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.environment import (
    as_written,
    too_much,
    variables,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    ROOT,
    Host,
    Inventory,
    Mistake,
    declared,
    did_you_mean,
    is_number,
    nearest,
    prefixes,
    shown,
    trusted,
    type_of,
    wrong,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.python_project import how_to_make, there_instead
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import SHARED, password_files
from ansible_collections.celery_ops.kit.plugins.plugin_utils.source_files import UNTRACKED, excluded
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import is_directory, is_there, path_of

LATER = object()
"""Stands for a secret that only a template would tell."""
PHASES = ("release", "workers", "scheduler", "web", "activate", "rollback")
HOOKS = tuple(f"{when}_{phase}" for phase in PHASES for when in ("before", "after"))
FORMER_HOOKS = {"before_close": "before_activate", "after_close": "after_activate"}
PACKAGES = {
    "uris": "uris: [https://apt.example.com/rabbitmq]",
    "suite": "suite: trixie",
    "key": "key: /path/to/rabbitmq.asc",
    "server": "server: 4.2.*",
    "erlang": "erlang: 1:27.*",
}
OLDEST_RABBITMQ, NEWEST_RABBITMQ = (3, 10), (4, 3)
DAY = 86400
"""Seconds."""
LOCAL_PORTS = (32768, 60999)
"""Ports that the kernel gives to outgoing connections."""

# Users, and directories below /etc, /run, /var/lib and /var/log, that a Debian system has or is likely to get.
_SYSTEM = """
root daemon bin sys sync games man lp mail news uucp proxy backup list irc nobody sshd ssh ssl sudo shadow staff
users user adm tty disk kmem utmp video audio messagebus polkitd dbus systemd udev dhcpcd tss apt dpkg cron
default network init security skel opt alternatives python3 perl ldap pam kernel modules lock log private misc
rabbitmq redis valkey epmd erlang supervisor supervisord nginx apache2 postgres postgresql mysql mariadb docker
containerd memcached postfix exim4 git ftp gunicorn
"""
RESERVED = frozenset(_SYSTEM.split())

# variable: least, most, what to write, why
BOUNDS: dict[str, tuple[float, float, Any, str]] = {
    "celery_app_task_time_limit": (2, 30 * DAY, 300, "seconds; the soft limit is a second shorter at least"),
    "celery_app_keep_releases": (1, 1000, 5, "releases; without one there is nothing to roll back to"),
    "celery_app_lock_wait": (0, DAY, 0, "seconds; 0 does not wait"),
    "celery_app_drain_wait": (0, 30 * DAY, 60, "seconds; 0 does not wait"),
    "celery_worker_ready_timeout": (5, DAY, READY_TIMEOUT, "seconds; a worker needs a few to start"),
    "celery_worker_min_uptime": (0, 3600, 6, "seconds"),
    "celery_web_min_uptime": (0, 3600, 4, "seconds"),
    "celery_web_stop_timeout": (1, DAY, 60, "seconds"),
    "rabbitmq_port": (1024, 65535, 5672, "a port that needs no root"),
    "rabbitmq_tls_port": (1024, 65535, 5671, "a port that needs no root"),
    "rabbitmq_consumer_timeout": (60, 366 * DAY, DAY, "seconds"),
    "rabbitmq_memory_high_watermark": (0.01, 0.95, 0.4, "a share of the memory"),
    "rabbitmq_delivery_limit": (1, 1000, 5, "times; 0 would give a task up with its first worker"),
    "result_store_port": (1024, 65535, 6379, "a port that needs no root"),
    "result_store_sentinel_port": (1024, 65535, 26379, "a port that needs no root"),
    "celery_app_result_store_database": (0, 15, 1, "a database of Redis"),
    "result_store_max_memory": (16, 10**7, 256, "MiB; left out, it is a quarter of the memory"),
    "preflight_disk_free": (0, 10**7, 1024, "MiB"),
}  # fmt: skip


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_ipv4(text: str) -> bool:
    return _is_address(text) and ":" not in text


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda text: bool(re.fullmatch(pattern, text))


_ADDRESS = (_is_address, "it has to be an IP address of the host.", "127.0.0.1")
_IPV4 = (
    _is_ipv4,
    "it has to be an IPv4 address of the host: Erlang's own ports are not opened at others.",
    "127.0.0.1",
)
_HOST = (
    _matches(r"[A-Za-z0-9._-]+|[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*"),
    "it has to be a name or an address alone, without scheme or port.",
    "10.0.0.5",
)
_HOSTS = (
    lambda text: all(map(_HOST[0], text.split(","))),
    "it has to be a name or an address alone, without scheme or port; several, with commas between, for a cluster.",
    _HOST[2],
)
_ABSOLUTE = (_matches(r"/[^\s]*"), "it has to be a path on the host that begins with /.")

# variable: whether the text is fine, what it has to be, what to write
FORMS: dict[str, tuple[Callable[[str], bool], str, str]] = {
    "celery_app_name": (
        _matches(r"[a-z][a-z0-9_]{0,27}"),  # a group has 32 characters at most, and its operators' is <name>-ops
        "it may hold lowercase letters, digits and _, starts with a letter, and has at most 28 characters.", "shop",
    ),
    "celery_app_module": (
        _matches(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?"),
        "it has to be what `celery -A` takes: a Python module, and perhaps :attribute. A factory can't be called: name "
        "a module that calls it (app = create_app().extensions['celery']).", "shop.celery:app",
    ),
    "celery_app_requirements": (
        lambda text: bool(text) and not text.startswith("/") and ".." not in Path(text).parts,
        "it has to be the path of a file inside the source.", "requirements.txt",
    ),
    "celery_app_directory": (
        lambda text: not text.startswith("/") and ".." not in Path(text).parts,
        "it has to be the path of a directory inside the source.", "services/shop",
    ),
    "celery_app_version": (
        _matches(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*"), "it has to be a branch, a tag or a commit.", "main",
    ),
    "celery_app_release": (
        _matches(r"([0-9a-f]{12})?"), "a release is called by 12 hexadecimal digits; see ls /srv/<app>/releases.", "''",
    ),
    "flower_bind": (
        _matches(r"([0-9.]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}"), "it has to be an IP address and a port.", "127.0.0.1:5555",
    ),
    "flower_url_prefix": (_matches(r"[A-Za-z0-9_-]*"), "it has to be one word, without slashes.", "flower"),
    "flower_user": (_matches(r"[^\s:]+"), "it has to be a word without a colon.", "flower"),
    "celery_app_check_url": (_matches(r"(/\S*)?"), "it has to be the part after the address.", "/"),
    "celery_app_check_host": (
        _matches(r"([A-Za-z0-9._-]+(:[0-9]{1,5})?)?"), "it has to be a name, without scheme or path.", "shop.example",
    ),
    "celery_app_command": (
        _matches(r"([A-Za-z0-9][A-Za-z0-9._-]*)?"), "it has to be the name of a command, without a directory.", "shop",
    ),
    "celery_app_python": (*_ABSOLUTE, PYTHON),
    "celery_app_broker_host": _HOSTS,
    "celery_app_result_store_host": _HOST,
    "rabbitmq_bind": _ADDRESS,
    "rabbitmq_distribution_bind": _IPV4,
    "result_store_bind": _ADDRESS,
    "result_store_address": (_matches(r"([0-9]{1,3}(\.[0-9]{1,3}){3})?"), "it has to be an IPv4 address.", "10.0.0.11"),
    "result_store_instance": (
        _matches(r"([a-z][a-z0-9_]{0,30})?"), "it may hold lowercase letters, digits and _.", "celery_ops",
    ),
    "rabbitmq_node_name": (_matches(r"[\w-]+@[\w.-]+"), "it has to be name@host.", "rabbit@localhost"),
    "rabbitmq_disk_free_limit": (
        _matches(r"[0-9]+(\.[0-9]+)? ?([kKmMgGtT]i?)?[bB]?"), "it has to be a number and a unit.", "1GB",
    ),
    "celery_web_bind": (
        _matches(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}"), "it has to be an address and a port.", "127.0.0.1:8000",
    ),
}  # fmt: skip


RENAMED = {
    "celery_worker_settle": "celery_worker_min_uptime",
    "celery_web_settle": "celery_web_min_uptime",
    "celery_app_prove_command": "celery_app_check_command",
    "celery_app_prove_url": "celery_app_check_url",
    "celery_app_prove_host": "celery_app_check_host",
    "celery_app_prove_https": "celery_app_check_https",
    "celery_app_ledger_on_production": "celery_app_soak_on_production",
    "celery_app_ledger_queue": "celery_app_soak_queue",
    "celery_app_ledger_rate": "celery_app_soak_rate",
    "celery_app_ledger_duration": "celery_app_soak_duration",
    "celery_app_ledger_patience": "celery_app_soak_patience",
    "host_packages": "celery_app_packages",
    "host_disk_free": "preflight_disk_free",
    "host_allow_untested": "preflight_allow_untested",
}
"""Names that variables had in earlier versions, and what they are called now."""
GONE = {
    "celery_app_broker_salt": "RabbitMQ's hash of the password has a salt that the kit makes on the broker.",
    "host_state_dir": "the kit's state is in /var/lib/celery-ops (move what is in yours there).",
}
"""Variables of earlier versions that nothing reads any more, and why."""


def renamed(host: Host) -> Iterator[Mistake]:
    """A variable of an earlier version would silently do nothing."""
    for variable in host.given:
        if variable in RENAMED:
            new = f"{RENAMED[variable]}: {shown(host.given[variable])}"
            yield Mistake(variable, f"{variable} is called {RENAMED[variable]} now. Write: {new}")
        elif variable in GONE:
            yield Mistake(variable, f"{variable} is not used any more: {GONE[variable]} Leave it out.")


def types(host: Host) -> Iterator[Mistake]:
    """What is given can be evaluated and has the type of its spec; secrets have a rule of their own."""
    for variable, spec in declared().items():
        if variable not in host.given or spec.get("no_log") or host[variable] is not None:
            continue
        if variable in host.unreadable:
            yield Mistake(
                variable,
                f"{variable} can't be evaluated: {host.unreadable[variable]}. Write a value, or set what it refers to.",
            )
        else:
            yield from type_of(variable, host.evaluate(host.given[variable]), spec)


def written(host: Host) -> Iterator[Mistake]:
    """A text that looks like a number is what was written: YAML makes 1.1 of 1.10, and 342391 of 01234567."""
    for variable, value in host.given.items():
        spec = declared().get(variable, {})
        if spec.get("type") not in ("str", "path") or not isinstance(value, (int, float)) or isinstance(value, bool):
            continue
        if (text := as_written(variable)) not in (None, str(value)):
            said = ("(not shown)", "...") if spec.get("no_log") else (f'{text}, which would arrive as "{value}"', text)
            problem = f"{variable} is {said[0]}: YAML reads it as a number and changes it."
            yield Mistake(variable, f'{problem} Write it in quotes: {variable}: "{said[1]}"')


def unknown(host: Host) -> Iterator[Mistake]:
    """A name that is nearly one of ours is a typo, and would silently do nothing."""
    families = tuple(prefix.split("_")[0] for prefix in prefixes())
    for variable in host.given:
        if variable in declared() or variable in RENAMED or variable in GONE or not variable.startswith(families):
            continue
        prefix = next((prefix for prefix in prefixes() if variable.startswith(prefix)), "")
        rests = {name.removeprefix(prefix): name for name in declared() if prefix and name.startswith(prefix)}
        near = [rests[rest] for rest in difflib.get_close_matches(variable.removeprefix(prefix), rests, 1, 0.8)]
        near += difflib.get_close_matches(variable, declared(), 1, 0.9)
        if near:
            text = f"{variable}: there is no variable of that name; did you mean {near[0]}? Write: {near[0]}: ..."
            yield Mistake(variable, text)


def bounds(host: Host) -> Iterator[Mistake]:
    """Numbers lie where they make sense."""
    for variable, (least, most, fix, why) in BOUNDS.items():
        if variable in host.given and host[variable] is not None and not least <= float(host[variable]) <= most:
            yield wrong(variable, host[variable], f"it has to be from {least} to {most} ({why}).", fix)


def forms(host: Host) -> Iterator[Mistake]:
    """Texts have the form that the programs they are for understand."""
    for variable, (fits, problem, fix) in FORMS.items():
        if variable in host.given and host[variable] is not None and not fits(host.text(variable)):
            if variable == "celery_app_name":
                fix = re.sub(r"[^a-z0-9_]", "_", host.text(variable).lower()).lstrip("0123456789_")[:28] or fix
            yield wrong(variable, host[variable], problem, fix)


def name(host: Host) -> Iterator[Mistake]:
    """The application's user and directories are nobody else's."""
    app = host.text("celery_app_name")
    if app in RESERVED:
        problem = f"user {app}, or directories like /etc/{app} and /var/lib/{app}, belong to the system."
        yield wrong("celery_app_name", app, problem, f"{app}_app")


def verified_clients(host: Host) -> Iterator[Mistake]:
    """Without TLS nobody can show a certificate."""
    if host.true("celery_app_tls_verify_clients") and not host.true("celery_app_tls"):
        problem = "celery_app_tls is false, and clients show certificates over TLS alone."
        yield wrong("celery_app_tls_verify_clients", host["celery_app_tls_verify_clients"], problem, "false")


def ports(host: Host) -> Iterator[Mistake]:
    """Listeners keep off the ports that the kernel gives away, and off each other's."""
    wanted = []
    if "rabbitmq" in host.groups:
        mine = "Erlang itself"
        wanted += [(mine, 4369), (mine, 25672), ("rabbitmq_port", host.int("rabbitmq_port"))]
        wanted += [("rabbitmq_tls_port", host.int("rabbitmq_tls_port"))]
    if "result_store" in host.groups:
        wanted += [("result_store_port", host.int("result_store_port"))]
        if host.true("celery_app_result_store_sentinel"):
            wanted += [("result_store_sentinel_port", host.int("result_store_sentinel_port"))]
    wanted += [("celery_web_bind", host.web_port)]
    if host.text("flower_host") == host.name and host.text("flower_bind").rpartition(":")[2].isdigit():
        wanted += [("flower_bind", int(host.text("flower_bind").rpartition(":")[2]))]
    fixes = {
        "rabbitmq_port": "5672", "rabbitmq_tls_port": "5671", "result_store_port": "6379",
        "result_store_sentinel_port": "26379",
        "celery_web_bind": "127.0.0.1:8000", "flower_bind": "127.0.0.1:5555",
    }  # fmt: skip
    seen: dict[int, str] = {}
    for variable, port in wanted:
        if port is not None and LOCAL_PORTS[0] <= port <= LOCAL_PORTS[1]:
            problem = (
                "the kernel gives ports 32768 to 60999 to outgoing connections, so that they are taken now and then."
            )
            yield wrong(variable, host[variable], problem, fixes[variable])
        elif variable.endswith("_bind") and port is not None and not 1 <= port <= 65535:
            yield wrong(variable, host[variable], "a port is from 1 to 65535.", fixes[variable])
        elif port in seen:
            problem = f"{seen[port]} has port {port} on the same host."
            yield wrong(variable, host[variable], problem, f"{fixes[variable]}, or another")
        elif port is not None:
            seen[port] = variable


def source(host: Host, inventory: Inventory) -> Iterator[Mistake]:
    """The source directory holds something, requirements among it. What is in a git repository shows when it is packed.

    A rollback packs no source: it has to work where that is gone.
    """
    where, requirements = host.text("celery_app_source"), host.text("celery_app_requirements")
    if host["celery_app_source"] is None or is_git(where) or inventory.action != "deploy":
        return
    top, fix = path_of(where), "/home/you/shop"
    directory = host.text("celery_app_directory")
    if not where or not is_directory(top):
        seen_from = "" if top.is_absolute() else f" (looked for in {Path.cwd()})"
        problem = f"no such directory on the control node{seen_from}, and not a git URL."
        yield wrong("celery_app_source", where, problem, fix)
    elif not _holds_a_file(top, host["celery_app_source_exclude"] or []):
        yield wrong("celery_app_source", where, "it contains no files to release.", fix)
    elif not is_directory(top / directory):
        yield wrong("celery_app_directory", directory, f"no such directory in {where}.", "a directory of the source")
    elif not (top / directory / requirements).is_file() and FORMS["celery_app_requirements"][0](requirements):
        inside = [
            str(path.relative_to(top / directory))
            for depth in ("*", "*/*.txt")
            for path in (top / directory).glob(depth)
        ]
        there = there_instead(inside)
        problem = f"no such file in {Path(where) / directory}." + ("" if there else f" {how_to_make(inside)}.")
        yield wrong("celery_app_requirements", requirements, problem, there[0] if there else "requirements.txt")
    elif host.given.get("celery_app_version") not in (None, "HEAD"):
        problem = f"celery_app_source is a directory, {where}, which is deployed as it stands."
        fix = f"HEAD, or: celery_app_source: {(top / '.git').absolute()}"
        yield wrong("celery_app_version", host["celery_app_version"], problem, fix)


def shared(host: Host) -> Iterator[Mistake]:
    """What is kept across releases is inside the application."""
    for path in host["celery_app_shared"] or []:
        parts = Path(str(path)).parts
        if not parts or str(path).startswith("/") or ".." in parts or re.search(r"\s", str(path)):
            problem = "it has to be a path inside the application, which becomes a link to /srv/<app>/shared."
            yield wrong("celery_app_shared", path, problem, "[db.sqlite3, media]")


def _holds_a_file(directory: Path, exclude: list[str]) -> bool:
    for at, directories, names in os.walk(directory):
        here, patterns = Path(at).relative_to(directory), [*UNTRACKED, *exclude]
        directories[:] = [name for name in directories if not excluded(str(here / name), patterns)]
        if any(not excluded(str(here / name), patterns) for name in names):
            return True
    return False


def packages(host: Host) -> Iterator[Mistake]:
    """A package source of RabbitMQ says all that apt has to know, and a version that the kit works with."""
    variable, options = "rabbitmq_packages", declared()["rabbitmq_packages"]["options"]
    if not (given := host[variable]):
        return
    for name in given.keys() - options:
        yield Mistake(variable, f"{variable} has {name}: {did_you_mean(name, options)} Write: {nearest(name, options)}")
    for name, option in options.items():
        if name not in given and name in PACKAGES:  # none is required by the spec: there the empty default has to pass
            yield Mistake(variable, f"{variable} has no {name}. {option['description']} Write: {PACKAGES[name]}")
        elif name in given:
            yield from type_of(f"{variable}.{name}", given[name], option)
    if "key" in given and not Path(str(given["key"])).is_file():
        problem = "there is no such file on the control node."
        yield wrong(f"{variable}.key", given["key"], problem, "/path/to/rabbitmq.asc")
    version = version_of(str(given.get("server", "")))
    if "server" in given and not (version and OLDEST_RABBITMQ <= version <= NEWEST_RABBITMQ):
        problem = "it has to be the version of the package, from 3.10 to 4.3."
        yield wrong(f"{variable}.server", given["server"], problem, "4.2.*")


def hooks(host: Host) -> Iterator[Mistake]:
    """Hooks are plugged in where there is one, and are files that exist."""
    playbooks = Path(str(host.given.get("playbook_dir", ROOT / "playbooks")))
    for hook, file in (host["celery_app_hooks"] or {}).items():
        if hook not in HOOKS:
            meant = FORMER_HOOKS.get(hook) or nearest(hook, HOOKS)
            problem = f"celery_app_hooks has {shown(hook)}: no such hook; {did_you_mean(meant, HOOKS)}"
            yield Mistake("celery_app_hooks", f"{problem} Write: celery_app_hooks: {{{meant}: {file}}}")
        elif not isinstance(file, str) or not (playbooks / file).is_file():
            problem = f"celery_app_hooks has {hook}, which is {shown(file)}: no such file on the control node."
            yield Mistake("celery_app_hooks", f"{problem} Write: celery_app_hooks: {{{hook}: /path/to/tasks.yml}}")


NOTIFY = {
    "webhook": "webhook: https://hooks.slack.com/services/...",
    "command": "command: /usr/local/bin/tell-everybody",
    "grafana": "grafana: https://grafana.example.com, token: ...",
    "sentry": "sentry: https://sentry.io, token: ..., organization: acme, projects: [shop]",
}
"""The kinds of targets of notices, and an example of each."""
NOTIFY_KEYS = {"webhook": (), "command": (), "grafana": (), "sentry": ("token", "organization", "projects")}
"""What a kind needs beside its URL or command."""


def notify(host: Host) -> Iterator[Mistake]:
    """Targets of notices are of one kind each, with a URL of http; their values are secrets and are not shown."""
    targets = host.given.get("celery_app_notify") or []
    for number, target in enumerate(targets if isinstance(targets, list) else []):
        name = f"celery_app_notify[{number}]"
        known = {*NOTIFY, "token", "organization", "projects", "events", "timeout"}
        given = set(target) if isinstance(target, Mapping) else set()
        kinds = sorted(given & set(NOTIFY))
        if len(kinds) != 1:
            what = f"it is of {len(kinds)} kinds" if given else "it is not a mapping"
            yield Mistake("celery_app_notify", f"{name}: {what}. Write one of: {'; '.join(NOTIFY.values())}")
            continue
        for key in sorted(map(str, given - known)):
            yield Mistake("celery_app_notify", f"{name} has the key {key}; {did_you_mean(key, known)}")
        missing = [key for key in NOTIFY_KEYS[kinds[0]] if not target.get(key)]
        # A template is not evaluated here: it makes a secret.
        is_url = bool(re.match(r"https?://[^/\s]+|.*\{\{", str(target[kinds[0]])))
        if missing or (kinds[0] != "command" and not is_url):
            problem = f"it lacks {', '.join(missing)}" if missing else "its value is not an http or https URL"
            yield Mistake("celery_app_notify", f"{name}: {problem}. Write: {NOTIFY[kinds[0]]}")
        yield from (Mistake("celery_app_notify", f"{name}: {text}") for text in form_of_target(target))
        for event in target["events"] if isinstance(target.get("events"), list) else []:
            if event not in (*EVENTS, WATCHDOG):
                text = f"{name}.events has {event}; {did_you_mean(event, (*EVENTS, WATCHDOG))}"
                yield Mistake("celery_app_notify", text)


def form_of_target(target: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a target has another form than its kind takes; a template is not evaluated here."""
    plain = {key: value for key, value in target.items() if not re.search(r"\{\{", str(value))}
    for key, example in (("events", "[failed, died]"), ("projects", "[shop]")):
        if not isinstance(plain.get(key, []), list):
            yield f"{key} is not a list. Write: {key}: {example}"
    if not is_number(plain.get("timeout", 5)) or float(plain.get("timeout", 5)) <= 0:
        yield "timeout is not a number of seconds. Write: timeout: 5"
    command, words = plain.get("command", "{{ }}"), []
    with suppress(ValueError):  # of a quote that is not closed
        words = shlex.split(str(command)) if command and not isinstance(command, (list, Mapping)) else []
    if not words:
        yield f"its command can't be split into words. Write: {NOTIFY['command']}"


def rollout(host: Host) -> Iterator[Mistake]:
    """Each step is a number of hosts or a share of them."""
    steps = host["celery_app_rollout"] or [""]
    for step in steps if isinstance(steps, list) else [steps]:
        if not re.fullmatch(r"[1-9][0-9]*|([1-9][0-9]?|100)%", str(step)):
            yield wrong("celery_app_rollout", step, "a step is a number of hosts or a share of them.", '[1, "100%"]')


def directories(host: Host) -> Iterator[Mistake]:
    """The control node can keep what it has to keep, and keeps secrets to itself."""
    for variable in ("celery_app_secrets_dir", "celery_app_cache_dir"):
        if not host[variable]:
            continue
        # The directory of a host of `-i host,` is the text None.
        beside = Path(str(host.given.get("inventory_dir", "/")))
        if variable == "celery_app_secrets_dir" and variable not in host.given and not beside.is_absolute():
            problem = f"{host.name} is in no inventory file that it could be beside."
            yield wrong(variable, host[variable], problem, "/home/you/shop/.secrets (for all hosts)")
            continue
        directory, is_relative = host.directory(variable), not path_of(host[variable]).is_absolute()
        if is_relative and host.text(variable).startswith("~"):
            yield wrong(variable, host[variable], "there is no such user on the control node.", "a directory of yours")
            continue
        if is_relative and variable == "celery_app_secrets_dir":
            problem = "Ansible would look for it beside the playbook; it has to begin with / or ~."
            yield wrong(variable, host[variable], problem, directory)
            continue
        there = next(path for path in [directory, *directory.parents] if is_there(path))
        if not there.is_dir() or not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            problem = f"{there} is not a directory that you may write to, on the control node."
            yield wrong(variable, str(directory), problem, "a directory of yours")
        elif there == directory and variable == "celery_app_secrets_dir":
            for path in filter(is_open, [directory, *directory.iterdir()]):
                line = f"chmod {'700' if path.is_dir() else '600'} {shlex.quote(str(path))}"
                yield Mistake(variable, f"{variable} is {shown(str(directory))}: others may read {path}. Type: {line}")


def is_open(path: Path) -> bool:
    """Whether others may read a secret, or a directory of them.

    Another run may be making its passwords: Ansible's lock file comes and goes, a new file is empty until it is closed
    to others.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    is_empty = stat.S_ISREG(found.st_mode) and not found.st_size
    return bool(found.st_mode & stat.S_IRWXO) and not is_empty


WORDS = (r"[!#-&(-\[\]-~]{8,}", "of ASCII, without spaces, quotes and backslashes")
"""What stands as it is in configurations of Redis and Sentinel, and in Erlang's file."""


def secrets(host: Host, look: Callable[[Any], Any]) -> Iterator[Mistake]:
    """The secrets that are given, each looked at through `look`; no message shows one."""
    for variable, spec in declared().items():
        if not spec.get("no_log") or variable not in host.given:
            continue
        try:
            value = look(host.given[variable])
        except AnsibleError as error:
            text = f"{variable} can't be evaluated: {' '.join(str(error).split())}."
            yield Mistake(variable, f"{text} Write a value, or set what it refers to.")
            continue
        if value is LATER:
            continue
        if spec["type"] == "dict":
            values, of_app = value if isinstance(value, Mapping) else {}, variable == "celery_app_secrets"
            yield from type_of(variable, value, spec)
            yield from variables(variable, values, hide=True, of_app=of_app)
            yield from too_much(variable, values, (host["celery_app_environment"] or {}) if of_app else {})
            continue
        if variable in ADDRESSES:
            yield from type_of(variable, value, spec)
            if isinstance(value, str) and (problem := ADDRESSES[variable](value)):
                yield Mistake(variable, f"{variable} {problem}")
            continue
        pattern, form = WORDS if variable in SHARED else (r"[^\n\r\0]{8,}", "in one line")
        if not re.fullmatch(pattern, str(value or "")):
            problem = f"has to be 8 characters or more, {form}"
            yield Mistake(variable, f"{variable} (not shown) {problem}. Leave it out, and one is made for you.")


_IN_ENVIRONMENT = {
    "rabbitmq": ("celery_app_broker_password", "CELERY_BROKER_URL"),
    "result_store": ("celery_app_result_store_password", "CELERY_RESULT_BACKEND"),
}


def generated(host: Host) -> dict[str, str]:
    """The secrets that would be generated now: the file each is missing in, by the environment variable it is for."""
    found = {}
    for group, (variable, name) in _IN_ENVIRONMENT.items():
        if not host.uses_group(group):
            continue
        value = host.given.get(variable, trusted(declared()[variable].get("default")))
        found[name] = missing_file(value, host.evaluate)
    given = host.given.get("celery_app_secrets")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        found[str(name)] = missing_file(value, host.evaluate)
    return {name: file for name, file in found.items() if file}


def not_generated(given: Mapping[str, Any], evaluate: Callable[[Any], Any]) -> dict[str, str]:
    """Stand-ins for the passwords that evaluating the variables would generate: looking must not make one."""
    passwords = [variable for variable, _ in _IN_ENVIRONMENT.values()]
    values = {name: given.get(name, trusted(declared()[name].get("default"))) for name in passwords}
    return {name: "not-generated-yet" for name, value in values.items() if missing_file(value, evaluate)}


def missing_file(value: Any, evaluate: Callable[[Any], Any]) -> str:
    """The file that evaluating `value` would write a new password to; "" where there is none."""
    return next((str(file) for file in password_files(value, evaluate) if not file.exists()), "")
