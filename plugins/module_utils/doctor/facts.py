"""What the checks look at, read once: files, /proc, and what RabbitMQ, Redis, Supervisor and systemd answer."""

from __future__ import annotations

import configparser
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import disk, proc
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import Disk
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json, text_if_there, text_of
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    APP_GROUPS,
    CERTIFICATES,
    COMMANDS_DIR,
    CONF_D,
    ERLANG_COOKIE,
    KEYS,
    SUPERVISORD_CONF,
    SYSTEMD,
    SYSTEMD_UNITS,
    TIME_LIMIT,
    Layout,
    Release,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, redis
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run
from ansible_collections.celery_ops.kit.plugins.module_utils.status.broker import ask
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import (
    Unlisted,
    ends_of,
    unlisted,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation, is_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.ini import option_in, parsed_file
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect

PACKAGES = ("rabbitmq-server", "erlang-base", "redis-server", "supervisor")
UNITS = ("supervisor", "rabbitmq-server", "redis-server")
UNIT_SETTINGS = "TimeoutStopUSec,KillMode,LimitCORE,UnitFileState"
ANY_QUEUE = "*"
"""Stands for the queues of a program that names none: it consumes from those of the application."""
LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""


@dataclass(frozen=True)
class File:
    """Mode, owner and size of a file or directory."""

    path: str
    mode: int
    owner: str
    size: int = 0
    age: float = 0.0
    """Seconds since it was changed."""


@dataclass(frozen=True)
class Program:
    """A Supervisor program of the application: what is in conf.d, and what supervisord runs."""

    name: str
    conf: str
    """The text of its file; empty where there is none."""
    state: str
    """Supervisor's; empty where it does not know the program."""
    pid: int = 0
    retires: bool = False
    heartbeat: float | None = None
    """The age of its heartbeat in seconds; None where it writes none."""
    core: str = "0"
    """Its limit of a core file, as in /proc/<pid>/limits."""


@dataclass(frozen=True)
class Pidfile:
    """A pidfile, and the command line of the process that it names; empty where there is none."""

    path: str
    pid: int
    process: str


@dataclass(frozen=True)
class Broker:
    """What RabbitMQ answers."""

    refused: str = ""
    """Why it answered nothing."""
    status: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)
    queues: tuple[dict[str, Any], ...] = ()
    """Those of the application's vhost."""
    consumer_timeout: int | None = None
    """Seconds; None for ever."""
    guest_is_open: bool = False
    """Whether the user guest has the password that everybody knows."""
    deprecated: tuple[str, ...] | None = None
    """Deprecated features in use; None where this version does not list them."""
    unlisted: tuple[Unlisted, ...] = ()
    """Programs that are connected from hosts that are not in their groups."""


@dataclass(frozen=True)
class Store:
    """What Redis answers."""

    refused: str = ""
    info: dict[str, str] = field(default_factory=dict)
    conf: dict[str, str] = field(default_factory=dict)
    acl: str = ""
    tls: bool = False


@dataclass(frozen=True)
class Supervisor:
    """Supervisor and the application's programs."""

    refused: str = ""
    socket: File | None = None
    inet: str = ""
    """The address of an [inet_http_server]; empty for none."""
    unit: dict[str, str] = field(default_factory=dict)
    """The settings of its unit; empty without systemd."""
    dropin: bool = True
    programs: tuple[Program, ...] = ()
    recorded: tuple[tuple[str, ...], ...] = ()
    """The programs of the current deployment's record, each with all names that it may have after a restart."""
    pidfiles: tuple[Pidfile, ...] = ()
    orphans: tuple[str, ...] = ()
    """Processes of the application's user that no supervisor or session looks after."""


@dataclass(frozen=True)
class Host:
    """The machine."""

    container: bool = False
    files: dict[str, File] = field(default_factory=dict)
    """By path: those whose modes matter, where they are there."""
    secrets_in: tuple[str, ...] = ()
    """Files that everybody may read and that hold a password."""
    listeners: frozenset[tuple[str, int]] = frozenset()
    disks: tuple[Disk, ...] = ()
    logs: tuple[File, ...] = ()
    synchronised: bool | None = None
    """None if unknown."""
    reboot: tuple[str, ...] = ()
    """Packages that ask for a reboot."""
    needrestart: str = ""
    """How needrestart restarts services; empty where it is not installed."""
    spared: str = ""
    """What needrestart's settings except from that."""
    apt: dict[str, str] = field(default_factory=dict)
    """Settings of unattended-upgrades; empty where it is not on."""
    memory: dict[str, int] = field(default_factory=dict)
    """/proc/meminfo, in KiB."""
    oom_kills: int = 0
    overcommit: int = 0
    huge_pages: str = ""
    core_pattern: str = "core"
    packages: dict[str, str] = field(default_factory=dict)
    certificates: dict[str, float] = field(default_factory=dict)
    """The days left of each certificate, by its file."""
    groups: frozenset[str] = frozenset()
    debian: str = ""


@dataclass(frozen=True)
class Secret:
    """A generated secret on the control node."""

    name: str
    mode: int
    length: int
    days: float


@dataclass(frozen=True)
class Control:
    """What the control node knows."""

    directory: str = ""
    mode: int = 0o700
    secrets: tuple[Secret, ...] = ()
    in_git: bool = False
    """Whether the directory is in a git work tree that does not ignore it."""
    rotation: bool = False
    skew: float | None = None
    """Seconds by which the host's clock is ahead of the control node's; None where it was not asked."""
    others: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What the inventory says."""

    time_limit: int = TIME_LIMIT
    queues: tuple[str, ...] = ()
    """The queues that worker programs consume from, on any host."""
    scheduler: bool = True
    """Whether a host schedules."""
    tls: bool = True
    nodes: int = 1
    """The nodes that the broker has."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """The hosts of the kit's groups."""


@dataclass(frozen=True)
class Facts:
    """All of it; a part is None where it is not for this place."""

    app: str
    wanted: Wanted
    host: Host | None = None
    broker: Broker | None = None
    store: Store | None = None
    supervisor: Supervisor | None = None
    inspection: dict[str, Any] | None = None
    control: Control | None = None


def read(app: str, groups: Iterable[str], wanted: Wanted) -> Facts:
    """Return the facts of this host."""
    groups = frozenset(groups)
    with ThreadPoolExecutor(4) as pool:
        broker = pool.submit(read_broker, app, wanted.groups) if "rabbitmq" in groups else None
        store = pool.submit(read_store) if "result_store" in groups else None
        programs = pool.submit(read_supervisor, app) if APP_GROUPS & groups else None
        host = read_host(app, groups)
    inspection = read_json(Release(Layout(app).current).state_file).get("inspect") if APP_GROUPS & groups else None
    return Facts(
        app,
        wanted,
        host,
        broker and broker.result(),
        store and store.result(),
        programs and programs.result(),
        inspection,
    )


def read_broker(app: str, groups: dict[str, list[str]]) -> Broker:
    """Return what RabbitMQ answers: its tool starts a machine of Erlang's each time, so several at once."""
    columns = ("name", "type", "durable", "arguments", "members", "online")
    with ThreadPoolExecutor(3) as pool:
        status = pool.submit(rabbitmq.rabbitmqctl, "status", "--formatter", "json")
        cluster = pool.submit(rabbitmq.rabbitmqctl, "cluster_status", "--formatter", "json")
        definitions = pool.submit(rabbitmq.exported_definitions)
        queues = pool.submit(rabbitmq.rows_of, "list_queues", *columns, vhost=app)
        timeout = pool.submit(rabbitmq.consumer_timeout)
        clients = pool.submit(ask, app, Layout(app).dead_queue)
        used = pool.submit(rabbitmq.rabbitmqctl, "list_deprecated_features", "--used", "--formatter", "json")
        try:
            found = Broker(
                "", status.result(), cluster.result(), definitions.result(), tuple(queues.result()), timeout.result()
            )
        except OperatorError as error:
            return Broker(refused=str(error))
        deprecated = None
        with suppress(OperatorError):
            deprecated = tuple(str(row["name"]) for row in used.result())
    guest = [user for user in found.definitions["users"] if user["name"] == "guest"]
    is_open = any(rabbitmq.is_password(user["password_hash"], "guest") for user in guest)
    elsewhere: list[Unlisted] = []
    with suppress(OperatorError, ValueError):
        elsewhere = unlisted(clients.result(), app, groups)
    more = {"guest_is_open": is_open, "deprecated": deprecated, "unlisted": tuple(elsewhere)}
    return Broker(**{**vars(found), **more})


def read_store() -> Store:
    """Return what Redis answers, and what its files say: the kit's user may not read its settings."""
    address = redis.listens_at()
    if address is None:
        return Store(refused="the kit has not configured it. Type: ansible-playbook playbooks/site.yml")
    try:
        lines = redis.ask(address, "INFO", user=redis.ADMIN, password=redis.admin_password())
    except OperatorError as error:
        return Store(refused=f"{error}. Start it: service redis-server start")
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    acl = Path(redis.ACL_FILE)
    conf = dict(map(redis.setting, filter(None, map(str.strip, redis.CONFIGURATION.read_text().splitlines()))))
    return Store("", info, conf, acl.read_text() if acl.exists() else "", bool(address.ca))


def read_supervisor(app: str) -> Supervisor:
    """Return Supervisor's settings, the application's programs, their pidfiles and orphans."""
    layout = Layout(app)
    try:
        processes = connect(SUPERVISORD_CONF, 0).processes()
    except OperatorError as error:
        return Supervisor(refused=str(error))
    confs = {path.stem: path for path in CONF_D.glob(f"{app}-*.conf") if is_of(app, path.stem)}
    programs = []
    for name in sorted({*confs, *(name for name in processes if is_of(app, name))}):
        path, process = confs.get(name), processes.get(name)
        beat, pid = read_json(layout.heartbeat(name)), process.pid if process else 0
        programs.append(
            Program(
                name,
                text_if_there(path) if path else "",
                process.state if process else "",
                pid,
                bool(path and path.is_symlink()),
                time.monotonic() - beat["beat"] if beat.get("pid") == pid and pid else None,
                core_limit(pid),
            )
        )
    named = supervisor_option(SUPERVISORD_CONF, "unix_http_server", "file")
    files = (SUPERVISORD_CONF, *sorted(CONF_D.glob("*.conf")))
    unit = settings_of("supervisor", UNIT_SETTINGS)
    record = Deployments(app).current()
    return Supervisor(
        "",
        file_of(named) if named else None,
        next(filter(None, (supervisor_option(file, "inet_http_server", "port") for file in files)), ""),
        unit,
        (SYSTEMD_UNITS / "supervisor.service.d/celery-ops.conf").exists(),
        tuple(programs),
        tuple(
            (program["name"], *(one.name for one in Generation.of_options(program).names))
            for program in record.get("programs", [])
        ),
        tuple(map(read_pidfile, sorted(layout.run.glob("*.pid")))),
        tuple(orphans(app, {process.pid for process in processes.values()})),
    )


def supervisor_option(conf: Path, section: str, name: str) -> str:
    """Return an option in a file of Supervisor's configuration; empty where it is not there or can't be read."""
    with suppress(OSError, configparser.Error):
        return option_in(parsed_file(conf), conf, section, name) or ""
    return ""


def settings_of(unit: str, names: str) -> dict[str, str]:
    """Return settings of a systemd unit; empty without systemd."""
    if not SYSTEMD.is_dir():
        return {}
    rc, out = run("systemctl", "show", unit, "-p", names)
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line) if rc == 0 else {}


def read_pidfile(path: Path) -> Pidfile:
    """Return a pidfile and the process that it names."""
    words, pid = "", 0
    with suppress(OSError, ValueError):
        pid = int(path.read_text())
        words = " ".join(proc.words(pid)) if proc.stat(pid) else ""
    return Pidfile(str(path), pid, words)


def orphans(app: str, supervised: Collection[int]) -> Iterable[str]:
    """Yield processes of the application's user whose parent is init, and that no supervisor has started.

    `supervised` are those that supervisord runs, which may be the first process of a container itself.
    """
    import pwd

    try:
        uid = pwd.getpwnam(app).pw_uid
    except KeyError:
        return
    for pid in proc.of_this_host(uid):
        found = proc.stat(pid)
        with suppress(OSError):
            words = proc.words(pid)
            # A user's own systemd, where somebody has logged in as it.
            if found and found.parent == 1 and pid not in supervised and words and "systemd" not in words[0]:
                yield f"pid {pid} ({' '.join(words)[:80]})"


def core_limit(pid: int) -> str:
    """Return how large a core file of the process may become, from /proc; 0 if unknown."""
    with suppress(OSError):
        found = re.search(r"^Max core file size\s+(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
        return found[1] if found else "0"
    return "0"


def file_of(path: str | Path) -> File | None:
    """Return mode, owner and size of what is there; None where nothing is."""
    import pwd

    try:
        seen = Path(path).stat()
    except OSError:
        return None
    try:
        owner = pwd.getpwuid(seen.st_uid).pw_name
    except KeyError:
        owner = str(seen.st_uid)
    return File(str(path), stat.S_IMODE(seen.st_mode), owner, seen.st_size, time.time() - seen.st_mtime)


def read_host(app: str, groups: frozenset[str]) -> Host:
    """Return the machine's facts."""
    layout = Layout(app)
    listed = [
        layout.environment_link, layout.etc, layout.deployments, layout.log, layout.releases, layout.current,
        layout.base, CONF_D, COMMANDS_DIR / app, SUPERVISORD_CONF, ERLANG_COOKIE, redis.ADMIN_KEY, redis.ACL_FILE,
        *KEYS, layout.tls_client, *sorted(layout.etc.glob("env-*")), *sorted(CONF_D.glob(f"{app}-*.conf")),
    ]  # fmt: skip
    files = {found.path: found for path in listed if (found := file_of(path))}
    meminfo = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    packages = run("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *PACKAGES)[1]
    virtual = run("systemd-detect-virt", "-c")[0] == 0 or Path("/.dockerenv").exists()
    timesync = run("timedatectl", "show", "-p", "NTPSynchronized", "--value")[1].strip()
    return Host(
        container=virtual,
        files=files,
        secrets_in=tuple(readable_secrets([*CONF_D.glob(f"{app}-*.conf"), SUPERVISORD_CONF])),
        listeners=frozenset(listening()),
        disks=tuple(disk.disks(app)),
        logs=tuple(filter(None, map(file_of, layout.log.glob("*.log*")))),
        synchronised={"yes": True, "no": False}.get(timesync),
        reboot=tuple(lines_of("/run/reboot-required.pkgs"))
        or (("?",) if Path("/run/reboot-required").exists() else ()),
        **needrestart(),
        apt=unattended_upgrades(),
        memory={words[0].rstrip(":"): int(words[1]) for words in meminfo},
        oom_kills=number_in("/proc/vmstat", r"^oom_kill (\d+)"),
        overcommit=number_in("/proc/sys/vm/overcommit_memory", r"(\d+)"),
        huge_pages=chosen_of("/sys/kernel/mm/transparent_hugepage/enabled"),
        core_pattern=" ".join(lines_of("/proc/sys/kernel/core_pattern")),
        packages={
            words[0]: words[1]
            for line in packages.splitlines()
            if len(words := line.split()) == 3 and words[2] == "installed"
        },
        certificates={
            path: (end - time.time()) / 86400
            for path, end in ends_of(map(str, (*CERTIFICATES.values(), layout.tls_ca, layout.tls_client))).items()
        },
        groups=groups,
        debian=" ".join(lines_of("/etc/debian_version")).partition(".")[0],
    )


def lines_of(path: str) -> list[str]:
    """Return the lines of a file; none where it is not there."""
    with suppress(OSError):
        return Path(path).read_text(errors="replace").splitlines()
    return []


def number_in(path: str, pattern: str) -> int:
    """Return the number that a pattern finds in a file; 0 for none."""
    found = re.search(pattern, "\n".join(lines_of(path)), re.MULTILINE)
    return int(found[1]) if found else 0


def chosen_of(path: str) -> str:
    """Return the chosen one of the kernel's list, which is in brackets."""
    found = re.search(r"\[(\w+)\]", " ".join(lines_of(path)))
    return found[1] if found else ""


def readable_secrets(paths: Iterable[Path]) -> Iterable[str]:
    """Yield the files that everybody may read and that hold a URL with a password."""
    for path in paths:
        with suppress(OSError):
            if path.stat().st_mode & 0o004 and re.search(r"://[^\s:/@]*:[^\s@/]+@", text_of(path)):
                yield str(path)


def listening() -> Iterable[tuple[str, int]]:
    """Yield address and port of every listening TCP socket, from /proc."""
    for name, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in lines_of(f"/proc/net/{name}")[1:]:
            words = line.split()
            if words[3] == LISTEN:
                address, _, port = words[1].partition(":")
                raw = bytes.fromhex(address)
                # Groups of four bytes, each in the machine's order.
                raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                yield socket.inet_ntop(kind, raw), int(port, 16)


def needrestart() -> dict[str, str]:
    """Return how needrestart restarts services, and what its settings except."""
    if not Path("/etc/needrestart").is_dir():
        return {}
    files = [Path("/etc/needrestart/needrestart.conf"), *sorted(Path("/etc/needrestart/conf.d").glob("*.conf"))]
    lines = [line for path in files for line in lines_of(str(path)) if not line.lstrip().startswith("#")]
    modes = re.findall(r"\$nrconf\{restart\}\s*=\s*['\"](\w)", "\n".join(lines))
    return {
        "needrestart": modes[-1] if modes else "i",
        "spared": "\n".join(one for one in lines if "override_rc" in one),
    }


def unattended_upgrades() -> dict[str, str]:
    """Return the settings of unattended-upgrades; empty where it is not on."""
    if not shutil.which("unattended-upgrade") or not shutil.which("apt-config"):
        return {}
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, errors="replace", timeout=30)
    pairs = re.findall(r'^(\S+) "(.*)";$', done.stdout, re.MULTILINE)
    settings: dict[str, str] = {}
    for name, value in pairs:
        if name.startswith(("APT::Periodic::Unattended-Upgrade", "Unattended-Upgrade::")):
            settings[name] = f"{settings.get(name, '')} {value}".strip()
    return settings if settings.get("APT::Periodic::Unattended-Upgrade", "0") != "0" else {}


def wanted_of(options: Mapping[str, Any]) -> Wanted:
    """Return what the inventory says, from the module's options."""
    return Wanted(**{**options, "queues": tuple(options.get("queues", ()))})
