"""How Flower is on this host, where the inventory has it here."""

from __future__ import annotations

import http.client
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.look import connect

TIMEOUT = 2.0
"""Seconds that its page has to answer."""


def name_of(app: str) -> str:
    """Return the name of Flower's program, of its directories and of its user."""
    return f"flower-{app}"


def log_of(app: str) -> Path:
    """Return its log."""
    return Path("/var/log", name_of(app), "flower.log")


def look(app: str, conf: Path, etc: Path = Path("/etc")) -> dict[str, Any]:
    """Return `state` (empty where it is not installed), `pid`, `uptime`, whether its page `answers`, and its `url`."""
    process, name = None, name_of(app)
    with suppress(OperatorError, OSError):  # the status says by itself that Supervisor does not answer
        process = connect(conf, 0).processes().get(name)
    if not process:
        return {"state": "", "pid": 0, "uptime": 0, "memory": 0, "answers": False, "url": ""}
    settings = read_json(etc / name / "settings.json").get("flower", {})
    address, port = own_address(str(settings.get("address", ""))), int(settings.get("port", 0))
    path = f"/{settings['url_prefix']}/" if settings.get("url_prefix") else "/"
    return {
        "state": process.state,
        "pid": process.pid,
        "uptime": process.uptime if process.pid else 0,
        "memory": 0,
        "answers": bool(process.pid) and answers(address, port, path),
        "url": f"http://{f'[{address}]' if ':' in address else address}:{port}{path}",
    }


def answers(address: str, port: int, path: str) -> bool:
    """Tell whether a page answers, if only that it wants a password."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
