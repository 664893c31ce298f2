"""The addresses that the kit's services listen on are free, or are the kit's own."""

from __future__ import annotations

import contextlib
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D

LISTENING = "0A"
# Whose listeners they are, by variable; the application's own user besides.
OWNERS = {
    "rabbitmq_port": "rabbitmq", "rabbitmq_tls_port": "rabbitmq", "result_store_port": "redis",
    "result_store_sentinel_port": "redis",
}  # fmt: skip


def problems(listeners: dict[str, str], app: str, conf_d: Path = CONF_D) -> Iterator[str]:
    """The ports are free, or the kit's own programs listen on them."""
    for variable, bind in listeners.items():
        host, _, port = bind.rpartition(":")
        found = listening(host.strip("[]"), int(port))
        owners = {user for user, _ in found.values()}
        # The web's listener binds as root and then is the application: where /proc hides that, its conf tells.
        files = [path for path in conf_d.glob(f"{app}-*.conf") if path.exists()]
        ours = any(f":{port} " in path.read_text() for path in files)
        if found and not ours and not owners & {app, OWNERS.get(variable, app)}:
            who = ", ".join(sorted(f"{command} of {user}" for user, command in found.values()))
            other = f"{host}:{int(port) + 1}" if variable == "celery_web_bind" else f"{int(port) + 1}"
            yield f"{variable} is {bind}, where {who} listens already. Stop it, or write: {variable}: {other}"


def listening(host: str, port: int) -> dict[str, tuple[str, str]]:
    """Return the sockets that listen on a port, at that address or at all, with user and program where those show."""
    try:
        wanted = {each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        wanted = {host}
    everywhere = {"0.0.0.0", "::"}
    found = {}
    for table, kind in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == LISTENING and int(number, 16) == port:
                words = [int(address[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(address), 8)]
                text = socket.inet_ntop(kind, b"".join(words))
                if text in wanted | everywhere or wanted & everywhere:
                    found[f"socket:[{fields[9]}]"] = (user_name(int(fields[7])), "a program")
    for process in Path("/proc").glob("[0-9]*") if found else ():
        for link in opened(process) & set(found):
            with contextlib.suppress(OSError):
                user = user_name(process.stat().st_uid)
                found[link] = (user, f"{(process / 'comm').read_text(errors='replace').strip()} (pid {process.name})")
    return found


def opened(process: Path) -> set[str]:
    """Return what a process has open, by its directory in /proc, as far as that can be seen."""
    found = set()
    with contextlib.suppress(OSError):
        for path in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(str(path.readlink()))
    return found


def user_name(uid: int) -> str:
    """Return a user's name; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
