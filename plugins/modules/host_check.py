#!/usr/bin/python
"""Look whether a host can carry what the inventory wants of it, and say all that is in the way."""

from __future__ import annotations

import configparser
import contextlib
import fnmatch
import os
import pwd
import re
import resource
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import proc, shared_services
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

DOCUMENTATION = r"""
module: host_check
short_description: Refuse a host that can't carry what the inventory wants of it
description:
  - Looks only, and reports all that is in the way at once.
options:
  supported:
    description: Tested versions by distribution (C(ID) and C(VERSION_ID) of os-release).
    type: dict
    required: true
  untested:
    description: Versions that have the same packages and init and are not tested, likewise.
    type: dict
    default: {}
  allow_untested:
    description: Whether the host may have one of those.
    type: bool
    default: false
  app:
    description: The application's name.
    type: str
    required: true
  command:
    description: The name of the application's command in /usr/local/bin; empty for none.
    type: str
    default: ""
  groups:
    description: Those of the inventory's groups that the host is in.
    type: list
    elements: str
    required: true
  programs:
    description: The worker programs.
    type: list
    elements: dict
    default: []
  overlap:
    description: Whether two generations of workers run side by side during a deploy.
    type: bool
    default: true
  python:
    description: The Python that makes the virtualenvs.
    type: path
    default: /usr/bin/python3
  disk_free:
    description: MiB that have to be free where releases, data and logs go.
    type: int
    default: 1024
  listeners:
    description: Addresses (C(host:port)) that the host's services are to listen on, by variable.
    type: dict
    default: {}
  node_name:
    description: RabbitMQ's node name.
    type: str
    default: ""
  distribution_bind:
    description: Address of Erlang's own ports.
    type: str
    default: 127.0.0.1
  broker_shared:
    description: Whether the broker is somebody else's, and only gets a vhost and a user.
    type: bool
    default: false
  time_limit:
    description: Seconds a task may take.
    type: int
    default: 300
  store_instance:
    description: The Redis instance of the kit's own, if it is to have one beside Debian's.
    type: str
    default: ""
  store_database:
    description: The application's database in the result store.
    type: int
    default: 1
  store_database_is_set:
    description: Whether the inventory sets that, or it is the default.
    type: bool
    default: false
  state_dir:
    description: The kit's state directory.
    type: path
    default: /var/lib/celery-ops
  store_memory:
    description: MiB that the result store may use.
    type: int
    default: 0
author: The celery-ops authors
"""
EXAMPLES = r"""
- host_check:
    supported: {debian: ["12", "13"]}
    app: shop
    groups: [worker]
    programs: [{name: default, queues: [shop], concurrency: 4}]
"""

COMMANDS = "/usr/local/bin"
SYSTEM_COMMANDS = "/usr/sbin:/usr/bin:/sbin:/bin"
CONF_D = "/etc/supervisor/conf.d"
SUPERVISORD_CONF = Path("/etc/supervisor/supervisord.conf")
DEBIANS_SUPERVISORD = Path("/usr/bin/supervisord")
PROCESS_MEMORY = 24
"""MiB: the least that a worker's pool process takes for itself; the rest of it is shared with its parent."""
PROCESSES_PER_CORE = 64
OPEN_FILES = 65_536  # what the guard lets a program open (runtime/celery_ops/guard.py)
# By pool: a prefork worker has six pipes a child (measured with Celery 5.7 on RabbitMQ: 35 files with 4 children, 275
# with 44); elsewhere a slot has a socket of the task's and one to the result store.
FILES_PER_SLOT = {"prefork": 6}
OTHER_FILES = 100
OLDEST_PYTHON = (3, 11)
LISTENING = "0A"
# Whose listeners they are, by variable; the application's own user besides.
OWNERS = {"rabbitmq_port": "rabbitmq", "result_store_port": "redis"}


@dataclass(frozen=True)
class Distribution:
    """What os-release says."""

    id: str
    version: str
    name: str

    @classmethod
    def read(cls, release: Path = Path("/etc/os-release")) -> Distribution:
        """Return this host's."""
        pairs = (line.partition("=") for line in release.read_text().splitlines() if "=" in line)
        about = {key: "".join(shlex.split(value)) for key, _, value in pairs}
        return cls(about.get("ID", ""), about.get("VERSION_ID", ""), about.get("PRETTY_NAME", "an unknown system"))

    def is_one_of(self, known: dict[str, list[str]]) -> bool:
        """Whether it is among these versions by distribution; 12 means every point release of it."""
        versions = [str(each) for each in known.get(self.id, [])]
        return self.version in versions or self.version.partition(".")[0] in versions


def distribution(
    runs: Distribution, supported: dict[str, list[str]], untested: dict[str, list[str]], allowed: bool
) -> Iterator[str]:
    """The distribution is one that the kit is tested on, or one that may be untested."""
    if runs.is_one_of(supported) or (allowed and runs.is_one_of(untested)):
        return
    wanted = "; ".join(f"{name.capitalize()} {' and '.join(map(str, each))}" for name, each in supported.items())
    if runs.is_one_of(untested):
        yield f"it runs {runs.name}, not tested by this project. Write: host_allow_untested: true, or use {wanted}"
    else:
        yield f"it runs {runs.name}; the kit supports {wanted}. Use a host with one of these."


def root() -> Iterator[str]:
    """We are root, or have become root."""
    if os.geteuid():
        user = pwd.getpwuid(os.geteuid()).pw_name
        line = "ansible-playbook playbooks/site.yml --become --ask-become-pass"
        yield f"tasks run as {user}, and they need root. Write: ansible_become: true (for the host), or type: {line}"


def slots_of(program: dict[str, Any]) -> int:
    """How many tasks a worker program runs at a time, at most."""
    return int(str(program.get("autoscale", program.get("concurrency", 2))).partition(",")[0])


def memory(programs: list[dict[str, Any]], overlap: bool, store: int) -> Iterator[str]:
    """The workers' processes fit into memory and are not out of proportion to the cores."""
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    count = sum(slots_of(each) for each in programs if each.get("pool", "prefork") == "prefork")
    needed = count * PROCESS_MEMORY * (2 if overlap else 1)
    cores = os.cpu_count() or 1
    if needed > total:
        twice = ", two generations side by side during a deploy" if overlap else ""
        fix = f"concurrency: {max(1, total // PROCESS_MEMORY // 4)}" + (
            ", or celery_worker_handover: one_by_one" if overlap else ""
        )
        yield (
            f"celery_worker_programs have a concurrency of {count} in all, which takes {needed} MiB at the least "
            f"({PROCESS_MEMORY} MiB each{twice}); the host has {total} MiB. Write: {fix}"
        )
    elif count > PROCESSES_PER_CORE * cores:
        yield (
            f"celery_worker_programs have a concurrency of {count} in all, and the host has {cores} cores "
            f"(more than {PROCESSES_PER_CORE} processes each). Write: concurrency: {4 * cores}, or pool: threads"
        )
    if store > total * 0.8:
        fix = f"result_store_max_memory: {total // 4}"
        yield f"result_store_max_memory is {store}, and the host has {total} MiB. Write: {fix}"


def open_files(programs: list[dict[str, Any]], limit: int) -> Iterator[str]:
    """Each worker program may open as many files as its slots need."""
    for each in programs:
        slots, pool = slots_of(each), str(each.get("pool", "prefork"))
        a_slot = FILES_PER_SLOT.get(pool, 2)
        if slots * a_slot + OTHER_FILES > limit:
            files, fits = slots * a_slot + OTHER_FILES, max(1, (limit - OTHER_FILES) // a_slot)
            yield (
                f"celery_worker_programs, {each.get('name')}: {slots} slots of the pool {pool} open {files} files, "
                f"and a process on this host may open {limit} (ulimit -Hn). Write: concurrency: {fits}, or raise the "
                f"limit: LimitNOFILE={OPEN_FILES} for the service (systemctl edit supervisor), in Docker --ulimit "
                f"nofile={OPEN_FILES} for the container"
            )


def most_open_files(running: Iterable[Supervisord]) -> int:
    """How many files the guard can let a program open: the hard limit that it gets, more where root may raise it."""
    wanted = (OPEN_FILES, OPEN_FILES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for each in running:
        with contextlib.suppress(OSError):
            hard = resource.prlimit(each.pid, resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        return OPEN_FILES
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, wanted)  # of this module alone
        return OPEN_FILES
    return hard


def disk(least: int, folders: tuple[str, ...] = ("/srv", "/var/lib", "/var/log")) -> Iterator[str]:
    """There is room for releases, data and logs."""
    seen = set()
    for folder in map(Path, folders):
        place = next(path for path in [folder, *folder.parents] if path.exists())
        free = shutil.disk_usage(place).free // 2**20
        if free < least and place.stat().st_dev not in seen:
            seen.add(place.stat().st_dev)
            fix = f"Make room (see: du -xh -d2 {place}), or write: host_disk_free: {free // 2}"
            yield f"{folder} has {free} MiB free, and host_disk_free wants {least}. {fix}"


def mounted(app: str, folder: str = "/srv") -> Iterator[str]:
    """Programs can be written and run where the releases go."""
    place = next(path for path in [Path(folder, app), *Path(folder, app).parents] if path.exists())
    flags, mount = os.statvfs(place).f_flag, place
    while not mount.is_mount():
        mount = mount.parent
    for flag, option, wanted in ((os.ST_NOEXEC, "noexec", "exec"), (os.ST_RDONLY, "ro", "rw")):
        if flags & flag:
            fix = (
                f"Write {wanted} instead of {option} for it in /etc/fstab, and type: mount -o remount,{wanted} {mount}"
            )
            yield f"{mount} is mounted with {option}, and the releases are to run from {folder}/{app}. {fix}"


@dataclass(frozen=True)
class Supervisord:
    """A running supervisord of root's, with its command line."""

    pid: int
    words: tuple[str, ...]
    folder: str

    @property
    def program(self) -> str:
        """The path of supervisord itself, which Python runs."""
        return next((word for word in self.words[1:4] if Path(word).name == "supervisord"), "")

    @property
    def conf(self) -> str:
        """The configuration file that it was given; empty for one that it looks for."""
        for at, word in enumerate(self.words):
            found = re.fullmatch(r"(?:-c|--configuration)=?(.*)", word)
            if found and (found[1] or self.words[at + 1 :]):
                return str(Path(self.folder, found[1] or self.words[at + 1]))
        return ""

    def __str__(self) -> str:
        return f"{self.program} with {self.conf or 'a configuration that it found'} (pid {self.pid})"

    @property
    def is_debians(self) -> bool:
        """Whether it is the service of Debian's package, which reads our programs."""
        return Path(self.program).resolve() == DEBIANS_SUPERVISORD and self.conf in ("", str(SUPERVISORD_CONF))


def supervisords() -> Iterator[Supervisord]:
    """Those that root runs on this host, not those of containers on it."""
    for pid in proc.of_this_host(uid=0):
        with contextlib.suppress(OSError):
            folder = Path("/proc", str(pid))
            found = Supervisord(pid, tuple(proc.words(pid)), str((folder / "cwd").readlink()))
            if found.program and (folder / "exe").readlink().name.startswith(("python", "pypy")):
                yield found


def supervisor(running: Iterable[Supervisord], conf: Path) -> Iterator[str]:
    """Supervisor is Debian's, or there is none yet; and its configuration includes the programs' folder."""
    others = [each for each in running if not each.is_debians]
    if others and len(others) == len(list(running)):
        start = "systemctl enable --now supervisor" if DEBIANS_SUPERVISORD.exists() else "apt-get install supervisor"
        yield (
            f"a Supervisor that is not Debian's runs here: {others[0]}. The kit works with the package's, which reads "
            f"{SUPERVISORD_CONF}. Stop the other one for good and write its programs into {CONF_D}, or, to have both "
            f"side by side, type first: {start}"
        )
    if not conf.exists():
        return
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", " #"), allow_no_value=True)
    try:
        parser.read(conf)
    except configparser.Error as error:
        yield f"{conf} can't be read: {' '.join(str(error).split())}. Write it as Supervisor's manual says."
        return
    patterns = parser.get("include", "files", fallback="").replace("%(here)s", str(conf.parent)).split()
    if not any(fnmatch.fnmatch(f"{CONF_D}/some.conf", str(conf.parent / pattern)) for pattern in patterns):
        yield f"{conf} does not include {CONF_D}. Write in its section [include]: files = {CONF_D}/*.conf"
    if not parser.get("unix_http_server", "file", fallback=""):
        line = "file=/var/run/supervisor.sock"
        yield f"{conf} gives supervisord no socket. Write in its section [unix_http_server]: {line}"


def python(path: str) -> Iterator[str]:
    """The Python of the virtualenvs is there and new enough. Debian's own comes with the packages, if need be."""
    if not Path(path).exists() and path == "/usr/bin/python3":
        return
    fix = "Write: celery_app_python: /usr/bin/python3"
    try:
        code = "import sys; print(*sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=20)
        version = tuple(map(int, done.stdout.split()))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        yield f"celery_app_python is {path}: {error}. {fix}"
        return
    if not version:
        yield f"celery_app_python is {path}: it is no Python ({done.stderr.strip()[-200:]}). {fix}"
    elif version < OLDEST_PYTHON:
        is_, wanted = (".".join(map(str, each)) for each in (version, OLDEST_PYTHON))
        yield f"celery_app_python is {path}, which is Python {is_}; it has to be {wanted} or newer. {fix}"


def name(app: str) -> Iterator[str]:
    """The application's user and folders are ours, or not there yet."""
    home = f"/var/lib/{app}"
    try:
        account = pwd.getpwnam(app)
    except KeyError:
        places = [f"{place}/{app}" for place in ("/srv", "/etc", "/run", "/var/lib", "/var/log")]
        # An empty folder is somewhere to mount a disk.
        found = [place for place in places if Path(place).is_file() or any(Path(place).glob("*"))]
        if found:
            problem = f"{', '.join(found)} is there already, and not from this kit."
            yield f"celery_app_name is {app}: {problem} Write: celery_app_name: {app}_app"
        return
    if account.pw_dir != home:
        yield (
            f"celery_app_name is {app}: a user of that name is there (uid {account.pw_uid}, home {account.pw_dir}). "
            f"Write: celery_app_name: {app}_app, or, if it is meant for the application, type: usermod -d {home} {app}"
        )


def command(wanted: str, app: str, place: str = COMMANDS, others: str = SYSTEM_COMMANDS) -> Iterator[str]:
    """The name of the application's command is free, or the command is ours."""
    if not wanted:
        return
    path = Path(place, wanted)
    ours = path.is_file() and f"\n# owner: celery-ops {app}\n" in path.read_text(errors="replace")
    found = str(path) if os.path.lexists(path) and not ours else shutil.which(wanted, path=others)
    if found:
        why = "is not the kit's, and stays" if found == str(path) else f"would be hidden by {path}"
        yield f"celery_app_command is {wanted}: {found} {why}. Write: celery_app_command: {wanted}_ops, or '' for none"


def node(wanted: str, data: str = "/var/lib/rabbitmq/mnesia") -> Iterator[str]:
    """The node's name does not hide the data of an earlier one."""
    folders = (path.name for path in Path(data).glob("*@*") if path.is_dir())
    found = sorted(name for name in folders if not name.endswith("-plugins-expand"))
    if found and wanted not in found:
        yield (
            f"rabbitmq_node_name is {wanted}, and the host holds data of {', '.join(found)}: it would be hidden. "
            f"Write: rabbitmq_node_name: {found[0]}{address_of(found[0])}, or, if the data is not needed, type: "
            f"service rabbitmq-server stop; rm -r {data}"
        )


def address_of(node_name: str) -> str:
    """The further line to write for a node whose name does not lead to 127.0.0.1."""
    try:
        address = socket.gethostbyname(node_name.rpartition("@")[2])
    except OSError:
        return ""
    return "" if address == "127.0.0.1" else f" and rabbitmq_distribution_bind: {address}"


def distribution_address(node_name: str, bind: str) -> Iterator[str]:
    """The node's host name resolves to an address that Erlang's port mapper listens on; else the broker won't boot."""
    host = node_name.rpartition("@")[2]
    try:
        address = socket.gethostbyname(host)
    except OSError:
        line = f"{'127.0.1.1' if bind.startswith('127.') else bind} {host}"
        yield f"rabbitmq_node_name is {node_name}, and {host} does not resolve on the host. Write in /etc/hosts: {line}"
        return
    if bind not in (address, "0.0.0.0"):
        yield (
            f"rabbitmq_distribution_bind is {bind}, and rabbitmq_node_name {node_name} leads to {address}, where the "
            f"broker would not find its port mapper. Write: rabbitmq_distribution_bind: {address}"
        )


def used_broker(app: str, shared: bool, time_limit: int, state_dir: str) -> Iterator[str]:
    """A broker that the kit did not install serves nobody else, or is left as it is."""
    if not shared_services.is_installed("rabbitmq") or shared_services.from_kit("rabbitmq", state_dir):
        if shared:
            yield "rabbitmq_shared is true, and the host has no RabbitMQ of its own. Write: rabbitmq_shared: false"
        return
    try:
        if shared:
            yield from foreign_vhost(app)
            yield from consumer_timeout(shared_services.consumer_timeout(), time_limit)
        elif not shared_services.is_configured("rabbitmq"):
            found = shared_services.broker_from_before(app)
            if found:
                yield (
                    f"RabbitMQ was there before, and is in use ({', '.join(found)}): the kit would change its "
                    "configuration, delete guest and restart it. Write: rabbitmq_shared: true (the application gets a "
                    "vhost and a user, and nothing else is changed), or use another host in group rabbitmq"
                )
    except shared_services.Unanswered as why:
        yield f"RabbitMQ was there before, and has to run so that the kit can tell who uses it. {why}"


def consumer_timeout(seconds: int | None, time_limit: int) -> Iterator[str]:
    """Somebody else's broker leaves a worker alone for as long as a task may take."""
    if seconds is not None and seconds <= time_limit:
        yield (
            f"celery_app_task_time_limit is {time_limit}, and the broker, whose consumer_timeout is {seconds} s, would "
            "cut off a worker that is still at work. Write: celery_app_task_time_limit: "
            f"{max(2, seconds - 60)}, or raise consumer_timeout in the broker's configuration"
        )


def foreign_vhost(app: str) -> Iterator[str]:
    """A vhost of the application's name on somebody else's broker is one that the kit made."""
    definitions = shared_services.broker_definitions()
    has_vhost = any(vhost["name"] == app for vhost in definitions["vhosts"])
    made_by_kit = any((each["vhost"], each["name"]) == (app, f"{app}.dead") for each in definitions["exchanges"])
    if has_vhost and not made_by_kit:
        yield f"celery_app_name is {app}: RabbitMQ has somebody else's vhost {app}. Write: celery_app_name: {app}_app"


def used_store(instance: str, state_dir: str) -> Iterator[str]:
    """A Redis that the kit did not install serves nobody else, or is left as it is."""
    was_there = shared_services.is_installed("result_store") and not shared_services.from_kit("result_store", state_dir)
    if instance and not was_there:
        yield "result_store_instance is set, and the host has no Redis of its own. Write: result_store_instance: ''"
    elif instance and not Path("/run/systemd/system").exists():
        yield "result_store_instance is set, and needs systemd. Use another host in group result_store"
    if instance or not was_there or shared_services.is_configured("result_store"):
        return
    found = shared_services.store_from_before()
    if found:
        yield (
            f"Redis was there before, and is in use ({', '.join(found)}): the kit would change its configuration and "
            "users and restart it. Write: result_store_instance: celery_ops and result_store_port: 6380 (a Redis of "
            "the kit's own beside it), or use another host in group result_store"
        )


def store_database(app: str, number: int, is_set: bool, users: dict[str, str]) -> Iterator[str]:
    """Each application has a database of the result store to itself."""
    variable = "celery_app_result_store_database"
    taken = {name: shared_services.database_of(rules) for name, rules in users.items() if name != app}
    free = next((each for each in range(1, 16) if each not in taken.values()), 0)
    if app in users and "+select|" not in users[app] and not is_set:
        yield (
            f"{variable} is not set, and the results of {app} are in database 0, as the version before had it. "
            f"Write: {variable}: {free} (results stored so far are no longer found; they expire within a day)"
            + ("" if taken else f", or {variable}: 0, to keep them there while {app} is alone in that Redis")
        )
    elif number == 0 and taken:
        yield (
            f"{variable} is 0, which every connection to Redis begins in, and {', '.join(sorted(taken))} uses the same "
            f"Redis. Write: {variable}: {free}"
        )
    elif sharing := [name for name, theirs in sorted(taken.items()) if theirs == number]:
        yield f"{variable} is {number}: {', '.join(sharing)} has that one in the same Redis. Write: {variable}: {free}"
    elif app not in users and (open_ := [name for name, theirs in sorted(taken.items()) if theirs == 0]):
        yield (
            f"{', '.join(open_)} keeps its results in database 0 of the same Redis, where {app} could read them. First "
            f"write for {open_[0]}: {variable}: {free}, and type: ansible-playbook playbooks/site.yml"
        )


def ports(listeners: dict[str, str], app: str, conf_d: str = CONF_D) -> Iterator[str]:
    """What is to be listened on is free, or ours."""
    for variable, bind in listeners.items():
        host, _, port = bind.rpartition(":")
        found = listening(host.strip("[]"), int(port))
        owners = {user for user, _ in found.values()}
        # The web's listener binds as root and then is the application: where /proc hides that, its conf tells.
        files = [path for path in Path(conf_d).glob(f"{app}-*.conf") if path.exists()]
        ours = any(f":{port} " in path.read_text() for path in files)
        if found and not ours and not owners & {app, OWNERS.get(variable, app)}:
            who = ", ".join(sorted(f"{command} of {user}" for user, command in found.values()))
            other = f"{host}:{int(port) + 1}" if variable == "celery_web_bind" else f"{int(port) + 1}"
            yield f"{variable} is {bind}, where {who} listens already. Stop it, or write: {variable}: {other}"


def listening(host: str, port: int) -> dict[str, tuple[str, str]]:
    """Sockets that listen on a port, at that address or at all: their user and program, as far as those show."""
    try:
        wanted = {each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        wanted = {host}
    everywhere = {"0.0.0.0", "::"}
    found = {}
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == LISTENING and int(number, 16) == port:
                words = [int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)]
                text = socket.inet_ntop(family, b"".join(words))
                if text in wanted | everywhere or wanted & everywhere:
                    found[f"socket:[{fields[9]}]"] = (user_name(int(fields[7])), "a program")
    for folder in Path("/proc").glob("[0-9]*") if found else ():
        for link in opened(folder) & set(found):
            with contextlib.suppress(OSError):
                user = user_name(folder.stat().st_uid)
                found[link] = (user, f"{(folder / 'comm').read_text().strip()} (pid {folder.name})")
    return found


def opened(folder: Path) -> set[str]:
    """What the process of a folder in /proc has open, as far as that can be seen."""
    found = set()
    with contextlib.suppress(OSError):
        for path in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(str(path.readlink()))
    return found


def user_name(uid: int) -> str:
    """A user's name; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "supported": {"type": "dict", "required": True},
            "untested": {"type": "dict", "default": {}},
            "allow_untested": {"type": "bool", "default": False},
            "app": {"type": "str", "required": True},
            "command": {"type": "str", "default": ""},
            "groups": {"type": "list", "elements": "str", "required": True},
            "programs": {"type": "list", "elements": "dict", "default": []},
            "overlap": {"type": "bool", "default": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "disk_free": {"type": "int", "default": 1024},
            "listeners": {"type": "dict", "default": {}},
            "node_name": {"type": "str", "default": ""},
            "distribution_bind": {"type": "str", "default": "127.0.0.1"},
            "broker_shared": {"type": "bool", "default": False},
            "time_limit": {"type": "int", "default": 300},
            "store_instance": {"type": "str", "default": ""},
            "store_database": {"type": "int", "default": 1},
            "store_database_is_set": {"type": "bool", "default": False},
            "state_dir": {"type": "path", "default": "/var/lib/celery-ops"},
            "store_memory": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    want = module.params
    runs = Distribution.read()
    runs_app = bool({"worker", "scheduler", "web"} & set(want["groups"]))
    found = [
        *distribution(runs, want["supported"], want["untested"], want["allow_untested"]),
        *root(),
        *disk(want["disk_free"]),
        *ports(want["listeners"], want["app"]),
    ]
    running = list(supervisords()) if runs_app else []
    if runs_app:
        found += [
            *name(want["app"]),
            *command(want["command"], want["app"]),
            *python(want["python"]),
            *mounted(want["app"]),
        ]
        found += supervisor(running, SUPERVISORD_CONF)
    if "worker" in want["groups"]:
        found += open_files(want["programs"], most_open_files(each for each in running if each.is_debians))
    found += memory(want["programs"] if "worker" in want["groups"] else [], want["overlap"], want["store_memory"])
    if "rabbitmq" in want["groups"]:
        used = list(used_broker(want["app"], want["broker_shared"], want["time_limit"], want["state_dir"]))
        found += used
        if not used and not want["broker_shared"]:
            found += [*node(want["node_name"]), *distribution_address(want["node_name"], want["distribution_bind"])]
    if "result_store" in want["groups"]:
        users = shared_services.acl_users()
        found += used_store(want["store_instance"], want["state_dir"])
        found += store_database(want["app"], want["store_database"], want["store_database_is_set"], users)
    if found:
        lines = [f"{number}. {text}" for number, text in enumerate(found, 1)]
        module.fail_json(msg="\n".join(["This host can't carry it; nothing was changed.", *lines]))
    if not runs.is_one_of(want["supported"]):
        module.warn(f"{runs.name} is not tested by this project (host_allow_untested).")
    for other in (each for each in running if not each.is_debians):
        module.warn(
            f"Beside Debian's Supervisor another one runs: {other}. The kit leaves it alone; to ask Debian's, type: "
            f"supervisorctl -c {SUPERVISORD_CONF} status"
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
