"""Who uses a host's RabbitMQ besides one application."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_if_there, text_of
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import RABBITMQ_DATA
from ansible_collections.celery_ops.kit.plugins.module_utils.services import counted
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import run

CONFIGURATION = Path("/etc/rabbitmq/conf.d/90-celery-ops.conf")
"""The file that the kit configures it by."""


LIMITED = "celery-ops-limited"
"""The tag of the users that an application has beside its own, with fewer permissions."""


def user_names(app: str) -> tuple[str, str]:
    """Return the names that an application's user has in turn: a rotation adds the one and removes the other.

    No application can be called like the second: a dash is not allowed in a name.
    """
    return app, f"{app}-2"


def limited_users(app: str, definitions: dict[str, Any]) -> list[str]:
    """Return the users of an application that may do less than its own, by exported definitions."""
    of_app = {each["user"] for each in definitions.get("permissions", []) if each["vhost"] == app}
    tagged = [user["name"] for user in definitions.get("users", []) if LIMITED in tags_of(user)]
    return [name for name in tagged if name in of_app]


def tags_of(user: dict[str, Any]) -> list[str]:
    """Return a user's tags, which some versions export as one text."""
    tags = user.get("tags") or []
    return tags.split(",") if isinstance(tags, str) else tags


def rabbitmqctl(*words: str, raw: bool = False) -> Any:
    """Return what rabbitmqctl prints: its JSON, or text as it is. Raises OperatorError."""
    rc, out = run("rabbitmqctl", "--quiet", *words)
    if rc:
        said = out.partition("Most common reasons")[0].strip()[-300:]
        raise OperatorError(f"RabbitMQ does not answer ({said}). Start it: service rabbitmq-server start")
    return out if raw else json.loads(out[re.search(r"[\[{]", out).start() :])


def exported_definitions() -> dict[str, Any]:
    """Return all definitions of the broker. Raises OperatorError."""
    return rabbitmqctl("export_definitions", "-", "--format", "json")


def import_definitions(definitions: dict[str, Any]) -> None:
    """Import definitions, by a file that only the broker's user can read. Raises OperatorError.

    rabbitmqctl becomes that user. By stdin it takes them with RabbitMQ 3.10, and hangs with 4.0.
    """
    with tempfile.NamedTemporaryFile("w", dir=RABBITMQ_DATA, suffix=".json") as file:
        shutil.chown(file.name, "rabbitmq", "rabbitmq")
        json.dump(definitions, file)
        file.flush()
        rabbitmqctl("import_definitions", file.name, raw=True)


def rows_of(what: str, *columns: str, vhost: str = "") -> list[dict[str, Any]]:
    """Return the rows of one of rabbitmqctl's lists. Raises OperatorError."""
    return rabbitmqctl(what, *(["--vhost", vhost] if vhost else []), *columns, "--formatter", "json")


def is_configured() -> bool:
    """Tell whether the kit has configured it."""
    return CONFIGURATION.exists()


def _configured(pattern: str) -> str:
    """Return what a pattern finds first in the file that the kit configures it by; "" for nothing."""
    return next(iter(_all_configured(pattern)), "")


def _all_configured(pattern: str) -> list[str]:
    """Return everything that a pattern finds there."""
    return re.findall(pattern, text_if_there(CONFIGURATION), re.MULTILINE)


def bound_to() -> str:
    """Return the address that the kit has it listen on; "" where the kit has not configured it."""
    return _configured(r"^listeners\.\w+\.\w+ = \[?(.+?)\]?:\d+$")


def configured_nodes() -> list[str]:
    """Return the nodes of the cluster that the kit has configured; none for a broker that is alone."""
    return sorted(_all_configured(r"^cluster_formation\..*\.nodes\.\d+ = (\S+)"))


def configured_consumer_timeout() -> int:
    """Return the seconds that the kit has it wait; 0 where the kit has not configured it."""
    return int(_configured(r"^consumer_timeout = (\d+)$") or 0) // 1000


def applications(definitions: dict[str, Any] | None = None) -> set[str]:
    """Return the applications of the kit, whose vhosts have the exchange that it makes. Raises OperatorError."""
    exchanges = (definitions or exported_definitions())["exchanges"]
    return {each["vhost"] for each in exchanges if each["name"] == f"{each['vhost']}.dead"}


def namesakes(app: str, definitions: dict[str, Any]) -> list[str]:
    """Return the vhost and users that have the application's name and are somebody else's. Pure.

    A user is, if it may do something that the kit's may not: in another vhost, or by a tag. One that may do nothing has
    lost its vhost, as in an uninstall that was interrupted.
    """
    if app in applications(definitions):
        return []
    found = [f"vhost {app}" for vhost in definitions["vhosts"] if vhost["name"] == app]
    reach = {each["user"] for each in definitions.get("permissions", []) if found or each["vhost"] != app}
    named = [user for user in definitions["users"] if user["name"] in user_names(app)]
    return found + [f"user {user['name']}" for user in named if user["name"] in reach or tags_of(user)]


def other_users(app: str, definitions: dict[str, Any]) -> list[str]:
    """Return vhosts, users and queues of the broker that are not the application's. Raises OperatorError."""
    others = [vhost["name"] for vhost in definitions["vhosts"] if vhost["name"] != app]
    queues = {name: rows_of("list_queues", "name", "messages", vhost=name) for name in others}
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
        what = [kind for kind in kinds if any(map(_is_made_in_the_first_vhost, definitions.get(kind, [])))]
        found += [f"RabbitMQ: vhost / ({', '.join(what)})"] if what else []
    return found + logins(app, definitions)


def _is_made_in_the_first_vhost(item: dict[str, Any]) -> bool:
    # What begins with amq. is the broker's own: RabbitMQ 4.3 exports its amq.rabbitmq.log, older ones did not.
    return item.get("vhost") == "/" and not item["name"].startswith("amq.")


def logins(app: str, definitions: dict[str, Any]) -> list[str]:
    """Return the users of exported definitions that are not the application's, nor a fresh broker's. Pure."""
    users = sorted(user["name"] for user in definitions["users"])
    own = (*user_names(app), *limited_users(app, definitions), "guest")
    return [f"RabbitMQ: user {name}" for name in users if name not in own]


def is_password(password_hash: str, password: str) -> bool:
    """Tell whether RabbitMQ's hash (four bytes of salt, then SHA-256) is that of the password."""
    raw = base64.b64decode(password_hash)
    return hashlib.sha256(raw[:4] + password.encode()).digest() == raw[4:]


def signs_of_use(app: str, root: str = "/etc/rabbitmq") -> list[str]:
    """Return what shows that a broker that the kit did not install is in use. Raises OperatorError."""
    found = [f"RabbitMQ: {path} has settings" for path in settings_in(Path(root))]
    definitions = exported_definitions()
    found += other_users(app, definitions)
    found += [f"RabbitMQ: {each}, which is not the kit's" for each in namesakes(app, definitions)]
    for user in definitions["users"]:
        if user["name"] == "guest" and not is_password(user["password_hash"], "guest"):
            found.append("RabbitMQ: user guest has a password of its own")
    connections = rows_of("list_connections", "user", "peer_host")
    own = (*user_names(app), *limited_users(app, definitions))
    names = sorted({row["user"] for row in connections if row["user"] not in own})
    return found + [f"RabbitMQ: a connection of user {name}" for name in names]


def consumer_timeout() -> int | None:
    """Return the seconds that the broker lets a task stay unacknowledged; None for ever. Raises OperatorError."""
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
        and path != CONFIGURATION
        and any(line.strip() and line.strip()[0] not in "#%" for line in text_of(path).splitlines())
    ]
