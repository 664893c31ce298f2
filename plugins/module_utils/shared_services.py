# SPDX-License-Identifier: MIT
"""Who uses a host's RabbitMQ, Redis and Supervisor besides one application: who would suffer from their removal."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = {"rabbitmq": "rabbitmq-server", "result_store": "redis-server", "supervisor": "supervisor"}
# The file by which the kit has configured a service.
CONFIGURATION = {
    "rabbitmq": "/etc/rabbitmq/conf.d/90-celery-ops.conf",
    "result_store": "/etc/redis/celery-ops.conf",
    "supervisor": "/etc/systemd/system/supervisor.service.d/celery-ops.conf",
}
REDIS_ACL = "/etc/redis/celery-ops.acl"
REDIS_KEY = "redis-admin"
"""The file in the kit's state directory with the password of the kit's own Redis user."""
REDIS_ADMIN = "celery-ops"
"""The kit's own Redis user. No application can have that name: a dash is not allowed in one."""
MARK = re.compile(r"^# owner: celery-ops ([a-z0-9_]+)-", re.MULTILINE)
TIMEOUT = 60  # seconds that a service has to answer


class Unanswered(Exception):
    """A service that can't be asked; the text says what to type."""


def run(*words: str, stdin: str = "", **environment: str) -> tuple[int, str]:
    """Return exit code and output of a command."""
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, **environment}
        )
    except FileNotFoundError:
        return 127, f"{words[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{words[0]} did not answer within {TIMEOUT} s"
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def is_installed(service: str) -> bool:
    """Tell whether Debian's package of the service is installed."""
    rc, out = run("dpkg-query", "-W", "-f", "${db:Status-Status}", PACKAGES[service])
    return rc == 0 and out == "installed"


def from_kit(service: str, state_dir: str) -> bool:
    """Tell whether the kit installed the service's package."""
    record = Path(state_dir, "packages.json")
    return record.exists() and PACKAGES[service] in json.loads(record.read_text())["packages"]


def is_configured(service: str, redis_conf: str = "/etc/redis/redis.conf") -> bool:
    """Tell whether the kit has configured the service: of Redis, Debian's own and not an instance beside it."""
    if service == "result_store":
        path = Path(redis_conf)
        return path.exists() and f"include {CONFIGURATION[service]}" in path.read_text().splitlines()
    return Path(CONFIGURATION[service]).exists()


def counted(number: int, thing: str) -> str:
    """Return a number with its noun."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


# Applications of the kit


def other_applications(app: str, srv: str = "/srv") -> list[str]:
    """Return the kit's other applications on this host: those with releases, whether they run or not."""
    found = sorted(path.parent.name for path in Path(srv).glob("*/releases") if path.is_dir())
    return [f"application {name} of this kit: {srv}/{name}/releases" for name in found if name != app]


# Supervisor


def programs(root: str = "/etc/supervisor") -> dict[str, set[str]]:
    """Return the files with programs, and the applications of the kit that own something in them."""
    files = sorted(path for path in Path(root, "conf.d").glob("*.conf") if path.is_file())
    found = {str(path): set(MARK.findall(path.read_text(errors="replace"))) for path in files}
    main = Path(root, "supervisord.conf")
    if main.exists() and re.search(r"^\[(program|group|eventlistener|fcgi-program):", main.read_text(), re.MULTILINE):
        found[str(main)] = set()
    return found


def other_programs(app: str, root: str = "/etc/supervisor") -> list[str]:
    """Return the files with programs that are not the application's."""
    found = {path: owners for path, owners in programs(root).items() if app not in owners}
    kit = sorted({owner for owners in found.values() for owner in owners})
    return [f"Supervisor: programs of application {owner}" for owner in kit] + [
        f"Supervisor: {path}" for path, owners in found.items() if not owners
    ]


def foreign_programs(root: str = "/etc/supervisor") -> list[str]:
    """Return the files with programs that no application of the kit owns."""
    return [path for path, owners in programs(root).items() if not owners]


# RabbitMQ


def rabbitmqctl(*words: str, raw: bool = False) -> Any:
    """Return what rabbitmqctl prints: its JSON, or text as it is. Raises Unanswered."""
    rc, out = run("rabbitmqctl", "--quiet", *words)
    if rc:
        said = out.partition("Most common reasons")[0].strip()[-300:]
        raise Unanswered(f"RabbitMQ does not answer ({said}). Start it: service rabbitmq-server start")
    return out if raw else json.loads(out[re.search(r"[\[{]", out).start() :])


def broker_definitions() -> dict[str, Any]:
    """Return all definitions of the broker. Raises Unanswered."""
    return rabbitmqctl("export_definitions", "-", "--format", "json")


def broker_list(what: str, *columns: str, vhost: str = "") -> list[dict[str, Any]]:
    """Return the rows of one of rabbitmqctl's lists. Raises Unanswered."""
    return rabbitmqctl(what, *(["--vhost", vhost] if vhost else []), *columns, "--formatter", "json")


def other_broker_users(app: str) -> list[str]:
    """Return vhosts, users and queues of the broker that are not the application's. Raises Unanswered."""
    definitions = broker_definitions()
    others = [vhost["name"] for vhost in definitions["vhosts"] if vhost["name"] != app]
    queues = {name: broker_list("list_queues", "name", "messages", vhost=name) for name in others}
    return vhosts_and_users(app, definitions, queues)


def vhosts_and_users(app: str, definitions: dict[str, Any], queues: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return those of exported definitions that are not the application's, nor a fresh broker's. Pure."""
    found = []
    for name, rows in sorted(queues.items()):
        waiting = counted(sum(int(row["messages"] or 0) for row in rows), "message")
        if name != "/" or rows:
            found.append(f"RabbitMQ: vhost {name} ({counted(len(rows), 'queue')}, {waiting})")
    if "/" in queues and not queues["/"]:
        kinds = ("exchanges", "policies", "parameters")
        what = [kind for kind in kinds if any(item.get("vhost") == "/" for item in definitions.get(kind, []))]
        found += [f"RabbitMQ: vhost / ({', '.join(what)})"] if what else []
    users = sorted(user["name"] for user in definitions["users"])
    return found + [f"RabbitMQ: user {name}" for name in users if name not in (app, "guest")]


def is_password(password_hash: str, password: str) -> bool:
    """Tell whether RabbitMQ's hash (four bytes of salt, then SHA-256) is that of the password."""
    raw = base64.b64decode(password_hash)
    return hashlib.sha256(raw[:4] + password.encode()).digest() == raw[4:]


def broker_from_before(app: str, root: str = "/etc/rabbitmq") -> list[str]:
    """Return what shows that a broker that the kit did not install is in use. Raises Unanswered."""
    found = [f"RabbitMQ: {path} has settings" for path in settings_in(Path(root))]
    found += other_broker_users(app)
    definitions = broker_definitions()
    for user in definitions["users"]:
        if user["name"] == "guest" and not is_password(user["password_hash"], "guest"):
            found.append("RabbitMQ: user guest has a password of its own")
    connections = broker_list("list_connections", "user", "peer_host")
    names = sorted({row["user"] for row in connections if row["user"] != app})
    return found + [f"RabbitMQ: a connection of user {name}" for name in names]


def consumer_timeout() -> int | None:
    """Return the seconds that the broker lets a task stay unacknowledged; None for ever. Raises Unanswered."""
    out = str(rabbitmqctl("eval", "element(2, application:get_env(rabbit, consumer_timeout)).", raw=True))
    return int(out) // 1000 if out.strip().isdigit() else None


def settings_in(root: Path) -> list[Path]:
    """Return the files of RabbitMQ's configuration that set something and that the kit did not write."""
    files = [
        root / "rabbitmq.conf",
        root / "advanced.config",
        root / "rabbitmq-env.conf",
        *sorted(root.glob("conf.d/*.conf")),
    ]
    return [
        path
        for path in files
        if path.is_file()
        and path != Path(CONFIGURATION["rabbitmq"])
        and any(line.strip() and line.strip()[0] not in "#%" for line in path.read_text().splitlines())
    ]


# Redis


def redis(address: tuple[str, int] | None, *commands: str, user: str = "", password: str = "") -> list[str]:
    """Return the lines that Redis answers to commands. Raises Unanswered with Redis' words.

    Commands and password go by stdin and environment: they are in no list of processes.
    """
    where = ["-h", address[0], "-p", str(address[1])] if address else []
    who = ["--user", user, "--no-auth-warning"] if user else []
    environment = {"REDISCLI_AUTH": password} if user else {}
    rc, out = run("redis-cli", *where, *who, stdin="\n".join(commands) + "\n", **environment)
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    bad = next(
        (line for line in lines if re.match(r"(\(error\) )?(ERR|NOAUTH|NOPERM|WRONGPASS|AUTH failed)", line)), ""
    )
    if rc or bad:
        raise Unanswered(bad or out.strip()[-300:])
    return lines


def listens_at(conf: str = CONFIGURATION["result_store"]) -> tuple[str, int] | None:
    """Return where the Redis that the kit configured listens; None where there is none."""
    if not Path(conf).exists():
        return None
    words = [line.split() for line in Path(conf).read_text().splitlines()]
    settings = {each[0]: each[1] for each in words if len(each) > 1}
    host = settings.get("bind", "127.0.0.1")
    return ("127.0.0.1" if host == "0.0.0.0" else host, int(settings.get("port", 6379)))


def acl_users(acl: str = REDIS_ACL) -> dict[str, str]:
    """Return the rules of every application's Redis user by name, as the kit's ACL file has them."""
    path = Path(acl)
    lines = path.read_text().splitlines() if path.exists() else []
    users = {
        each[1]: each[2] for each in (line.split(" ", 2) for line in lines) if len(each) == 3 and each[0] == "user"
    }
    return {name: rules for name, rules in users.items() if name not in ("default", REDIS_ADMIN)}


def database_of(rules: str) -> int:
    """Return the database that a user's rules name; 0 for the rules of earlier versions, which let into all."""
    found = re.search(r"\+select\|(\d+)", rules)
    return int(found[1]) if found else 0


def keys_by_database(info: list[str]) -> dict[int, int]:
    """Return the number of keys of each database, from what INFO keyspace says."""
    found = (re.match(r"db(\d+):keys=(\d+)", line) for line in info)
    return {int(one[1]): int(one[2]) for one in found if one}


def admin_password(state_dir: str) -> str:
    """Return the password of the kit's own Redis user; "" where there is none yet."""
    path = Path(state_dir, REDIS_KEY)
    return path.read_text().strip() if path.exists() else ""


def other_store_users(app: str, state_dir: str, acl: str = REDIS_ACL) -> list[str]:
    """Return users, keys and instances of Redis that are not the application's. Raises Unanswered."""
    users = acl_users(acl)
    found = [f"Redis: user {name} (database {database_of(users[name])})" for name in sorted(users) if name != app]
    configured = listens_at()
    if configured is None:
        return found + (store_from_before() if is_installed("result_store") else [])
    if password := admin_password(state_dir):
        # Results from before applications had databases of their own are in 0, where nobody else can write.
        theirs = {0, *(database_of(rules) for rules in users.values())}
        try:
            keys = keys_by_database(redis(configured, "INFO keyspace", user=REDIS_ADMIN, password=password))
        except Unanswered as why:
            raise Unanswered(f"Redis does not answer ({why}). Start it: service redis-server start") from None
        found += [
            f"Redis: {counted(count, 'key')} in database {number}"
            for number, count in keys.items()
            if number not in theirs
        ]
    return found + other_instances()


def other_instances(root: str = "/etc/redis") -> list[str]:
    """Return the configurations of other Redis servers of this host, which the same package serves."""
    paths = sorted(Path(root).glob("redis-*.conf"))
    ours = f"include {CONFIGURATION['result_store']}\n"
    return [f"Redis: another instance, {path}" for path in paths if ours not in path.read_text()]


def store_from_before(conf: str = "/etc/redis/redis.conf", data: str = "/var/lib/redis") -> list[str]:
    """Return what shows that a Redis that the kit did not install is in use. Raises Unanswered."""
    found = []
    if changed_conffile(PACKAGES["result_store"], conf):
        found.append(f"Redis: {conf} is not as the package brought it")
    settings = dict(
        each.split(None, 1) for each in Path(conf).read_text().splitlines() if len(each.split(None, 1)) == 2
    )
    address = ("127.0.0.1", int(settings.get("port", "6379").strip('" ')))
    try:
        said = redis(address, "INFO keyspace", "ACL LIST", "CLIENT LIST")
    except Unanswered as why:
        if re.match(r"(\(error\) )?NO", str(why)):
            return [*found, "Redis: it wants a password"]
        dumps = [path for path in Path(data).glob("*") if path.name.endswith(".rdb") or path.is_dir()]
        return found + [f"Redis: it does not run, and {path} is there" for path in sorted(dumps)]
    keys = keys_by_database(said)
    found += [f"Redis: {counted(count, 'key')} in database {number}" for number, count in keys.items()]
    found += [f"Redis: user {line.split()[1]}" for line in said if re.match(r"user (?!default )\S+ ", line)]
    clients = [line for line in said if re.match(r"id=\d+ ", line)]
    if len(clients) > 1:  # one of them is this question
        found.append(f"Redis: {counted(len(clients) - 1, 'connection')}")
    return found + other_instances()


def changed_conffile(package: str, conf: str) -> bool:
    """Tell whether a file of the package's configuration differs from what the package brought."""
    listed = run("dpkg-query", "-W", "-f", "${Conffiles}", package)[1]
    sums = {words[0]: words[1] for words in map(str.split, listed.splitlines()) if len(words) > 1}
    path = Path(conf)
    return path.exists() and conf in sums and hashlib.md5(path.read_bytes()).hexdigest() != sums[conf]


def others(service: str, app: str, state_dir: str) -> list[str]:
    """Return everything of others that needs the service, one thing a text. Raises Unanswered."""
    if not is_installed(service):
        return []
    if service == "rabbitmq":
        return other_broker_users(app)
    return other_store_users(app, state_dir) if service == "result_store" else other_programs(app)
