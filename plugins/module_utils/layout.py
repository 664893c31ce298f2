"""Paths, names, file modes, defaults and times that more than one place needs: each fact stands here and nowhere else.

The modules on the hosts, the plugins on the control node and the runtime (``celery_ops.layout``) use this file.
It imports the standard library only and runs on Python 3.11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# --- Directories and files that no application owns

CONF_D = Path("/etc/supervisor/conf.d")
SUPERVISORD_CONF = Path("/etc/supervisor/supervisord.conf")
SUPERVISOR_SOCKET = Path("/var/run/supervisor.sock")
SYSTEMD = Path("/run/systemd/system")
"""There where systemd is the host's init."""
SYSTEMD_UNITS = Path("/etc/systemd/system")
RABBITMQ_DATA = Path("/var/lib/rabbitmq")
ERLANG_COOKIE = RABBITMQ_DATA / ".erlang.cookie"
REDIS_CONF, REDIS_DATA = Path("/etc/redis/redis.conf"), Path("/var/lib/redis")
SENTINEL_CONF = Path("/etc/redis/sentinel.conf")
"""Sentinel keeps its state in it: who is the primary."""
CERTIFICATES = {
    "broker": Path("/etc/rabbitmq/tls/cert.pem"),
    "result_store": Path("/etc/redis/celery-ops-tls/cert.pem"),
}
"""Those of the services, where their roles install them; each has its key beside it."""
KEYS = tuple(path.with_name("key.pem") for path in CERTIFICATES.values())
AUTHORITIES = {service: path.with_name("ca.pem") for service, path in CERTIFICATES.items()}
"""The CA beside each."""
TLS_CLIENT = "CELERY_OPS_TLS_CLIENT"
"""The variable of an application's environment with the file that its programs show to broker and result store."""
KIT_STATE = Path("/var/lib/celery-ops")
"""What the kit notes of a host: installed packages, users of the services."""
KIT_RUN = Path("/run/celery-ops")
"""Leases, work under way and the Supervisor files that a reboot has to forget: a directory for each application."""
COMPILED = KIT_RUN / ".compiled"
"""What the kit's modules were compiled to on this host; no application has such a name."""
TMPFILES_DIR = Path("/etc/tmpfiles.d")
COMMANDS_DIR = Path("/usr/local/bin")
SUDOERS_DIR = Path("/etc/sudoers.d")
PYTHON = "/usr/bin/python3"
"""Debian's own."""
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
RUNUSER = "/usr/sbin/runuser"
"""By its path: `su` brings no sbin in PATH."""

# --- File modes

UMASK = 0o022
FILE, DIRECTORY = 0o644, 0o755
"""What everybody may read."""
OWN_FILE, OWN_DIRECTORY = 0o640, 0o750
"""What root and the application may read."""
SECRET_FILE, SECRET_DIRECTORY = 0o600, 0o700
"""What root alone may read."""

# --- Names

GROUPS = ("rabbitmq", "result_store", "worker", "scheduler", "web")
APP_GROUPS = frozenset({"worker", "scheduler", "web"})
"""The groups whose hosts run programs of the application."""
GENERATION = re.compile(r"-[0-9a-f]{8}$")
"""The end of a program's name; what is before it is the program that the generations are of."""
BEAT_SCHEDULE = "beat-schedule-py"
"""Then comes the version of Python."""
STAND_IN = "-standin"
"""In the name of what works in a generation's place while that is recycled, before the generation's id."""
PROGRAMS_OF = {"worker": ("worker",), "web": ("web", "listener"), "scheduler": ("scheduler",)}
"""By group, how the names of its programs go on after the application's; `listener` is what 0.1 called the web's."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""The name of an environment variable, as a shell takes it."""
ADOPTED = "before-records"
"""The id of the deployment that was made by a version of the kit that kept no records."""
HOUSEKEEPING_QUEUES = r".*pidbox|celeryev.*|celery_delayed.*|celery-ops\..*|amq\..*"
"""The queues that Celery, the kit and RabbitMQ make for themselves, matched against the whole name."""
DELAYED = r".*celery_delayed_\d+"
"""Those of them in which tasks wait for their ETA."""
DELAY_LEVELS = 28
"""How many of these Celery has, and bits before the queue's name in a routing key: in ``celery_delayed_<n>`` waits what
is due in 2**n to 2**(n+1) seconds."""
CONTROL_QUEUE = re.compile(r"(?P<program>[^@]+)@(?P<host>.+?)(?:\.[0-9a-f]{8})?\.[^.]+\.pidbox")
"""The queue in which a worker hears control commands; it names the worker's program, and its host in the inventory."""
CONNECTION = re.compile(r"(?P<program>\S+) on (?P<host>\S+)")
"""What a program calls its connections to the broker (`celery_ops.launch.env.connection_name`)."""
LEASED = "celery-ops-scheduler"
"""The command of beat as one of several schedulers, of which one leads."""
CANARY_QUEUE, ECHO_QUEUE, LEASE_QUEUE = "celery-ops.canary", "celery-ops.echo", "celery-ops.scheduler"
DEAD = ".dead"
"""The end of the name of the queue for an application's dead-lettered tasks."""
GUARD = "celery-ops-guard"
RENAMED_COMMANDS = {
    "celery-ops-check": "celery-ops-prove",
    "celery-ops-soak": "celery-ops-ledger",
    "celery-ops-watchdog": "celery-ops-health",
}
"""Commands of the runtime, and what 0.1 called them."""

PID, LOCK, HEARTBEAT, CANARY, SOCKET, HOLD = ".pid", ".pid.lock", ".heartbeat", ".canary", ".sock", ".hold"
"""The ends of the names of what a program has in its application's run directory."""
REQUESTS = ".requests"
"""The end of the name of a worker's list of the tasks that it has."""
COUNTERS = ".tasks"
"""The end of the name of what a worker's process counts; the watchdog removes the file when it has added it up."""
RUN_FILE = re.compile(r"(.+-[0-9a-f]{8})(?:\.pid|\.pid\.lock|\.heartbeat|\.canary|\.requests|\.hold)")
"""A file in the run directory that belongs to one generation."""

# --- Ports

SENTINEL_PRIMARY = "celery-ops"
"""The name by which Sentinel knows the result store's primary."""
ERLANG_PORTS = [4369, 25672]
"""Of RabbitMQ's port mapper and of the connections between its nodes; no client uses them."""

# --- Defaults

CONCURRENCY = 2
OPEN_FILES = 65_536
"""What the guard lets a program open, as Debian's units of RabbitMQ and Redis do, where the host allows that."""
POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")
TIME_LIMIT = 300
"""Seconds that a task may take."""
TIME_LIMITS = (2, 30 * 86400)
"""The least and the most of them that anybody may write."""
READY_TIMEOUT = 60
"""Seconds within which a worker has to become ready."""
START_TIMEOUT = 30
"""The same for other programs."""
KEEP_RELEASES = 5

# --- Times, in seconds

STOP_MARGIN = 30
"""How much longer than its tasks may take a program may take to stop."""
SCHEDULER_STOP_TIMEOUT = 30
HELPER_STOP_TIMEOUT = 10
"""For what has no tasks to finish: the watchdog, the web's listener."""
TICK_ENTRY = "celery-ops-tick"
"""The scheduler's entry for the tick, the task by which a check knows that it works."""
TICK_INTERVAL = 15
LEASE_TIMEOUT = 45.0
"""Without a renewal within that time, a deploy lock counts for nothing."""
KEEPER_FREES = 10.0
"""Seconds at most until the keeper of a run that has ended has freed its lock."""
CERTIFICATE_DAYS = 30
"""Days before its end from which on a certificate is a problem; site.yml renews the kit's own earlier than that."""
ETA_ALLOWANCE = 43_200
"""How long a worker of an application without the kit's settings may hold a task with an ETA."""


def soft_limit(limit: int) -> int:
    """Return when a task that may take `limit` seconds is told to end: a tenth, at most 30 s, before it is ended."""
    return limit - max(1, min(30, limit // 10))


def stop_timeout(limit: int) -> int:
    """Return the seconds that a program whose tasks may take `limit` has to stop, before it is killed."""
    return limit + STOP_MARGIN


def supervisor_stop_timeout(longest_limit: int) -> int:
    """Return the seconds that supervisord has to stop all programs; long, so that all applications agree on it."""
    return max(3600, 4 * stop_timeout(longest_limit))


def consumer_timeout(longest_limit: int) -> int:
    """Return the seconds that RabbitMQ lets a message go unacknowledged."""
    return max(2 * ETA_ALLOWANCE, 2 * longest_limit)


def move_authority(app: str) -> Path:
    """Return where a broker has the CA of the one that an application moves to."""
    return Path(f"/etc/rabbitmq/celery-ops-move-{app}.pem")


def program_of(name: str) -> str:
    """Return the program that a generation's name, or its stand-in's, belongs to: ``shop-worker-default``."""
    return GENERATION.sub("", name).removesuffix(STAND_IN)


def size(text: str) -> int:
    """Return the bytes of a size such as 500M; 0 for what is none."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([KMG])", text)
    return int(found[1]) << {"K": 10, "M": 20, "G": 30}[found[2]] if found else 0


def stand_in_of(name: str) -> str:
    """Return the name of the process that works in a generation's place while that is recycled."""
    return f"{program_of(name)}{STAND_IN}{name[len(program_of(name)) :]}"


# --- An application, and a release of it


@dataclass(frozen=True)
class Release:
    """The files of one release, also of one that is reached by the link `current`."""

    path: Path

    @property
    def source(self) -> Path:
        """The packed source; `app` is this directory, or a link to one in it."""
        return self.path / ("source" if (self.path / "source").is_dir() else "app")

    @property
    def app(self) -> Path:
        """The working directory of every program."""
        return self.path / "app"

    @property
    def venv(self) -> Path:
        """The link to the virtualenv, which several releases may share."""
        return self.path / "venv"

    @property
    def runtime(self) -> Path:
        """Where `celery_ops` is imported from."""
        return self.path / "runtime"

    @property
    def commands(self) -> Path:
        """The directory of the kit's commands."""
        return self.path / "bin"

    @property
    def state_file(self) -> Path:
        """What is known of the release: whether it is built, good or failed."""
        return self.path / "release.json"

    def command(self, name: str) -> Path:
        """Return a command of the kit's runtime, ``celery-ops-guard`` for example."""
        return self.commands / name

    def command_of_0_1(self, name: str) -> Path:
        """Return the same command in a release that 0.1 built: in the virtualenv, some by another name."""
        return self.venv / "bin" / RENAMED_COMMANDS.get(name, name)

    def command_here(self, name: str) -> Path:
        """Return a command of a release that is on this host, whichever version of the kit has built it."""
        return self.command(name) if self.commands.is_dir() else self.command_of_0_1(name)


@dataclass(frozen=True)
class Layout:
    """Where an application's files are on a host, and what its programs are called."""

    app: str
    srv: Path = Path("/srv")

    @property
    def base(self) -> Path:
        """The directory of everything that is deployed."""
        return self.srv / self.app

    @property
    def releases(self) -> Path:
        """The directory of the releases."""
        return self.base / "releases"

    @property
    def current(self) -> Path:
        """The link to the release of the deployment that is live."""
        return self.base / "current"

    @property
    def virtualenvs(self) -> Path:
        """The directory of the virtualenvs, each named by the hash of its content."""
        return self.base / "venvs"

    @property
    def listeners(self) -> Path:
        """The directory of the listener's versions, which lie outside every release."""
        return self.base / "listeners"

    @property
    def shared(self) -> Path:
        """The application's own data, the same for all releases."""
        return self.base / "shared"

    @property
    def deployments(self) -> Path:
        """The directory of the deployments' records; root only."""
        return self.base / "deployments"

    @property
    def etc(self) -> Path:
        """The directory of the environment files."""
        return Path("/etc", self.app)

    @property
    def environment_link(self) -> Path:
        """The link to the environment file of the deployment that is live."""
        return self.etc / "env"

    @property
    def notify(self) -> Path:
        """Whom the watchdog tells what it did; missing where nobody wants to know."""
        return self.etc / "notify.json"

    @property
    def tls_ca(self) -> Path:
        """The CA of broker and result store."""
        return self.etc / "ca.pem"

    @property
    def tls_client(self) -> Path:
        """What programs show to broker and result store: certificate and key in one file."""
        return self.etc / "client.pem"

    @property
    def tls_bundle(self) -> Path:
        """That CA and those that the host trusts, for clients that take one file for all connections."""
        return self.etc / "ca-bundle.pem"

    @property
    def run(self) -> Path:
        """Pidfiles, locks, heartbeats and sockets; the application owns it, and a reboot empties it."""
        return Path("/run", self.app)

    @property
    def memory(self) -> Path:
        """Large results on their way between two processes; the application makes and owns it, and it is memory."""
        return Path("/dev/shm", f"celery-ops-{self.app}")

    @property
    def log(self) -> Path:
        """The directory of the logs; root owns it."""
        return Path("/var/log", self.app)

    @property
    def audit_log(self) -> Path:
        """A JSON line for every deploy and rollback."""
        return self.log / "deploys.log"

    @property
    def state(self) -> Path:
        """The home of the application's user: what its programs keep."""
        return Path("/var/lib", self.app)

    @property
    def ledger(self) -> Path:
        """What numbered tasks wrote down."""
        return self.state / "ledger"

    @property
    def revoked(self) -> Path:
        """The revocations of tasks, a file for each program."""
        return self.state / "revoked"

    @property
    def metrics(self) -> Path:
        """What the watchdog writes for Prometheus, for status, and for itself."""
        return self.state / "metrics"

    @property
    def prom(self) -> Path:
        """The metrics in Prometheus's text format."""
        return self.metrics / f"{self.app}.prom"

    @property
    def hour(self) -> Path:
        """The last hour of queues and programs, a sample every ten seconds."""
        return self.metrics / "hour.json"

    @property
    def day(self) -> Path:
        """The last day of them, a sample every five minutes."""
        return self.metrics / "day.json"

    @property
    def pause(self) -> Path:
        """What is paused, since when and until when."""
        return self.state / "pause.json"

    @property
    def work(self) -> Path:
        """The lease of a deploy, and the lock of the process that works for it."""
        return KIT_RUN / self.app

    @property
    def deploy_lock(self) -> Path:
        """The lease of the deploy that is under way."""
        return self.work / "deploy.lock"

    @property
    def volatile_conf_dir(self) -> Path:
        """The Supervisor files of generations that a reboot must not start."""
        return self.work / "conf.d"

    @property
    def tmpfiles(self) -> Path:
        """What makes systemd recreate the run directory at boot."""
        return TMPFILES_DIR / f"{self.app}.conf"

    @property
    def operators(self) -> str:
        """The group whose members operate the application."""
        return f"{self.app}-ops"

    @property
    def operators_command(self) -> Path:
        """What they work with."""
        return COMMANDS_DIR / f"{self.app}ctl"

    @property
    def sudoers(self) -> Path:
        """Their rights."""
        return SUDOERS_DIR / f"celery-ops-{self.app}"

    @property
    def dead_queue(self) -> str:
        """The queue, and the exchange before it, of the dead-lettered tasks."""
        return f"{self.app}{DEAD}"

    @property
    def scheduler(self) -> str:
        """The scheduler's program."""
        return f"{self.app}-scheduler"

    @property
    def web(self) -> str:
        """The web server's program."""
        return f"{self.app}-web"

    @property
    def web_listener(self) -> str:
        """The program that holds the web's listening socket."""
        return f"{self.app}-web-listener"

    @property
    def watchdog(self) -> str:
        """The watchdog's program."""
        return f"{self.app}-watchdog"

    @property
    def watchdog_before(self) -> str:
        """The watchdog's program as 0.1 called it."""
        return f"{self.app}-health"

    def worker(self, name: str) -> str:
        """Return the program of an entry of celery_worker_programs."""
        return f"{self.app}-worker-{name}"

    def release(self, release: str) -> Release:
        """Return the files of a release, by its id."""
        return Release(self.releases / release)

    def environment_file(self, digest: str) -> Path:
        """Return the environment file of this content."""
        return self.etc / f"env-{digest}"

    def conf(self, name: str) -> Path:
        """Return a generation's Supervisor file."""
        return CONF_D / f"{name}.conf"

    def pidfile(self, name: str) -> Path:
        """Return a program's pidfile, by the program's name or that of a generation."""
        return self.run / f"{name}{PID}"

    def heartbeat(self, name: str) -> Path:
        """Return the heartbeat file of a generation."""
        return self.run / f"{name}{HEARTBEAT}"

    def canary(self, name: str) -> Path:
        """Return the file that a generation's canary task writes."""
        return self.run / f"{name}{CANARY}"

    def log_file(self, name: str) -> Path:
        """Return the log of a generation."""
        return self.log / f"{name}.log"

    def socket(self, bind: str) -> Path:
        """Return where the listener of this address hands its socket out: another address is another socket."""
        return self.run / f"web-{re.sub(r'[^0-9A-Za-z.]', '_', bind)}{SOCKET}"

    def beat_schedule(self, python: str) -> Path:
        """Return beat's schedule, which another version of Python may not be able to read."""
        return self.state / f"{BEAT_SCHEDULE}{python}"
