"""Who uses a host's Redis besides one application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import KIT_STATE
from ansible_collections.celery_ops.kit.plugins.module_utils.services import counted
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import (
    PACKAGES,
    changed_conffile,
    is_installed,
    run,
)

CONFIGURATION = Path("/etc/redis/celery-ops.conf")
"""The file that the kit configures it by."""
ACL_FILE = "/etc/redis/celery-ops.acl"
ADMIN_KEY = KIT_STATE / "redis-admin"
"""The file with the password of the kit's own Redis user; root alone reads it."""
ADMIN = "celery-ops"
"""The kit's own Redis user. No application can have that name: a dash is not allowed in one."""


class Address(NamedTuple):
    """Where a Redis listens, and the CA that verifies it; none without TLS."""

    host: str
    port: int
    ca: str = ""


def ask(address: Address, *commands: str, user: str = "", password: str = "") -> list[str]:
    """Return the lines that Redis answers to commands. Raises OperatorError with Redis' words.

    Commands and password go by stdin and environment: they are in no list of processes.
    """
    who = ["--user", user, "--no-auth-warning"] if user else []
    environment = {"REDISCLI_AUTH": password} if user else {}
    tls = ["--tls", "--cacert", address.ca] if address.ca else []
    rc, out = run(
        "redis-cli",
        "-h",
        address.host,
        "-p",
        str(address.port),
        *tls,
        *who,
        stdin="\n".join(commands) + "\n",
        **environment,
    )
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    bad = next(
        (line for line in lines if re.match(r"(\(error\) )?(ERR|NOAUTH|NOPERM|WRONGPASS|AUTH failed)", line)), ""
    )
    if rc or bad:
        raise OperatorError(bad or out.strip()[-300:])
    return lines


def listens_at(conf: Path = CONFIGURATION) -> Address | None:
    """Return where the Redis that the kit configured listens; None where there is none."""
    if not conf.exists():
        return None
    settings = _settings(conf)
    host = settings.get("bind", "127.0.0.1")
    port = int(settings.get("tls-port") or settings.get("port", 6379))
    return Address("127.0.0.1" if host == "0.0.0.0" else host, port, settings.get("tls-ca-cert-file", ""))


def bound_to() -> str:
    """Return the address that the kit has it listen on; "" where the kit has not configured it."""
    return _settings(CONFIGURATION).get("bind", "") if CONFIGURATION.exists() else ""


def _settings(conf: Path) -> dict[str, str]:
    """Return the first word of each option in a configuration, by the option's name."""
    words = [line.split() for line in conf.read_text().splitlines()]
    return {each[0]: each[1] for each in words if len(each) > 1}


def is_configured(conf: str = "/etc/redis/redis.conf") -> bool:
    """Tell whether the kit has configured Debian's own Redis, not an instance beside it."""
    path = Path(conf)
    return path.exists() and f"include {CONFIGURATION}" in path.read_text().splitlines()


def acl_users(acl: str = ACL_FILE) -> dict[str, str]:
    """Return the rules of every application's Redis user by name, as the kit's ACL file has them."""
    path = Path(acl)
    lines = path.read_text().splitlines() if path.exists() else []
    users = {
        each[1]: each[2] for each in (line.split(" ", 2) for line in lines) if len(each) == 3 and each[0] == "user"
    }
    return {name: rules for name, rules in users.items() if name not in ("default", ADMIN)}


def database_of(rules: str) -> int:
    """Return the database that a user's rules name; 0 for the rules of earlier versions, which let into all."""
    found = re.search(r"\+select\|(\d+)", rules)
    return int(found[1]) if found else 0


def keys_by_database(info: list[str]) -> dict[int, int]:
    """Return the number of keys of each database, from what INFO keyspace says."""
    found = (re.match(r"db(\d+):keys=(\d+)", line) for line in info)
    return {int(one[1]): int(one[2]) for one in found if one}


def admin_password() -> str:
    """Return the password of the kit's own Redis user; "" where there is none yet."""
    return ADMIN_KEY.read_text().strip() if ADMIN_KEY.exists() else ""


def other_users(app: str, acl: str = ACL_FILE) -> list[str]:
    """Return users, keys and instances of Redis that are not the application's. Raises OperatorError."""
    users = acl_users(acl)
    found = [f"Redis: user {name} (database {database_of(users[name])})" for name in sorted(users) if name != app]
    configured = listens_at()
    if configured is None:
        return found + (signs_of_use() if is_installed("result_store") else [])
    if password := admin_password():
        # Results from before applications had databases of their own are in 0, where nobody else can write.
        theirs = {0, *(database_of(rules) for rules in users.values())}
        try:
            keys = keys_by_database(ask(configured, "INFO keyspace", user=ADMIN, password=password))
        except OperatorError as why:
            raise OperatorError(f"Redis does not answer ({why}). Start it: service redis-server start") from None
        found += [
            f"Redis: {counted(count, 'key')} in database {number}"
            for number, count in keys.items()
            if number not in theirs
        ]
    return found + other_instances()


def other_instances(root: str = "/etc/redis") -> list[str]:
    """Return the configurations of other Redis servers of this host, which the same package serves."""
    paths = sorted(Path(root).glob("redis-*.conf"))
    ours = f"include {CONFIGURATION}\n"
    return [f"Redis: another instance, {path}" for path in paths if ours not in path.read_text()]


def signs_of_use(conf: str = "/etc/redis/redis.conf", data: str = "/var/lib/redis") -> list[str]:
    """Return what shows that a Redis that the kit did not install is in use. Raises OperatorError."""
    found = []
    if changed_conffile(PACKAGES["result_store"], conf):
        found.append(f"Redis: {conf} is not as the package brought it")
    settings = dict(
        each.split(None, 1) for each in Path(conf).read_text().splitlines() if len(each.split(None, 1)) == 2
    )
    address = Address("127.0.0.1", int(settings.get("port", "6379").strip('" ')))
    try:
        said = ask(address, "INFO keyspace", "ACL LIST", "CLIENT LIST")
    except OperatorError as why:
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
