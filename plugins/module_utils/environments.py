"""Environment files of former deployments: what a rollback restores logs in with today's credentials."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import OWN_FILE, TLS_CLIENT
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import user_names

BROKER, STORE = "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"
SENTINEL = "CELERY_OPS_SENTINEL"
BESIDE = ("CELERY_OPS_TLS_CA", "CELERY_OPS_TLS_NAME", TLS_CLIENT, "SSL_CERT_FILE")
"""What a connection needs beside its URL."""


def parse(text: str) -> dict[str, str]:
    """Return the variables in an environment file that the kit has written."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def is_of_kit(url: str, app: str) -> bool:
    """Tell whether a URL (of several: the first) logs in as the user that the kit has made for the application."""
    return bool(url) and urlsplit(url.split(";")[0]).username in user_names(app)


def place(url: SplitResult) -> str:
    """Return a URL's beginning: scheme, login, host and port."""
    return f"{url.scheme}://{url.netloc}"


def refreshed(text: str, today: str, app: str) -> str:
    """Return an environment file's text with today's way to the kit's broker and result store; the same if it has it.

    Everything else stays, also the database of the results. Other variables that hold one of the two URLs, or its
    password alone, follow.
    """
    then, now = parse(text), parse(today)
    if is_of_kit(then.get(BROKER, ""), app) and is_of_kit(now.get(BROKER, ""), app):
        then = followed(then, then[BROKER], now[BROKER])
        for name in BESIDE:
            then.pop(name, None)
        then |= {name: now[name] for name in BESIDE if name in now}
    if is_of_kit(then.get(STORE, ""), app) and is_of_kit(now.get(STORE, ""), app):
        database = urlsplit(then[STORE].split(";")[0]).path
        urls = [urlsplit(url)._replace(path=database).geturl() for url in now[STORE].split(";")]
        then = followed(then, then[STORE], ";".join(urls))
        then.pop(SENTINEL, None)
        then |= {SENTINEL: now[SENTINEL]} if SENTINEL in now else {}
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(then.items())]
    return "".join(lines)


def followed(variables: dict[str, str], old: str, new: str) -> dict[str, str]:
    """Return variables with one URL replaced by another, in whatever value it stands."""
    before, after = urlsplit(old.split(";")[0]), urlsplit(new.split(";")[0])
    # Without a password, what is empty stays so.
    passwords = {unquote(before.password): unquote(after.password or "")} if before.password else {}
    return {
        name: value.replace(old, new).replace(place(before), place(after))
        if place(before) in value
        else passwords.get(value, value)
        for name, value in variables.items()
    }


def refresh(directory: Path, app: str) -> list[str]:
    """Give the environment files of former deployments today's credentials; return the names of those that changed."""
    link = directory / "env"
    if not link.exists():
        return []
    today, changed = link.read_text(), []
    for path in sorted(directory.glob("env-*")):
        if path != link.resolve() and (fresh := refreshed(text := path.read_text(), today, app)) != text:
            write_atomically(path, fresh, OWN_FILE, 0, path.stat().st_gid)
            changed.append(path.name)
    return changed
