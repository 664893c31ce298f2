"""What celery_status might return of hosts: all well, everything wrong, and names that are markup."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import Versions
from ansible_collections.celery_ops.kit.plugins.module_utils.status.look import Status, Unlisted
from ansible_collections.celery_ops.kit.plugins.module_utils.status.metrics import hour_of
from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import problems
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import text
from ansible_collections.celery_ops.kit.plugins.modules.celery_status import returned
from ansible_collections.celery_ops.kit.plugins.plugin_utils.status_report import moment

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"' & ]]> {{ 7*7 }}"
GOOD = {
    "action": "deploy", "at": moment(time.time() - 1500).replace("Z", "+0000"), "who": "anna@control",
    "from": "r0", "to": "r1", "outcome": "good", "commit": "0a1b2c3", "changed": ["release"],
    "seconds": {"release": 12.5, "workers": 8.0},
}  # fmt: skip


FLOWER = {
    "state": "RUNNING", "pid": 4712, "uptime": 90061, "memory": 52428800, "answers": True,
    "url": "http://127.0.0.1:5555/",
}  # fmt: skip
PAUSE = {
    "what": "queue", "name": "photos", "who": "anna@control", "why": "disk full", "by": "", "since": time.time() - 600,
    "until": time.time() + 3600,
}  # fmt: skip


def program(name: str, **more: Any) -> dict[str, Any]:
    """A program that runs."""
    known = {
        "state": "RUNNING", "pid": 4711, "uptime": 90061, "release": "r1", "program": name.rpartition("-")[0],
        "health": "ready", "why": "", "restarts": 0, "memory": 98566144, "active": 0, "slots": 0, "reserved": 0,
        "queues": [], "paused": [], "retires": False,
    }  # fmt: skip
    return {name: {**known, **more}}


def worker(name: str, **more: Any) -> dict[str, Any]:
    """A worker that runs."""
    return program(name, **{"active": 1, "slots": 8, "reserved": 3, "queues": ["shop", "mail"], **more})


def seen(**more: Any) -> Status:
    """A host that runs everything, and well."""
    programs = {
        **program("shop-scheduler-1", memory=65011712),
        **program("shop-web-1", health="up"),
        **program("shop-web-listener-1", release="", health=""),
        **worker("shop-worker-default-1"),
    }
    queues = {
        "shop": {"messages": 45, "ready": 42, "unacked": 3, "consumers": 2},
        "mail": {"messages": 0, "ready": 0, "unacked": 0, "consumers": 2},
        "shop.dead": {"messages": 0, "ready": 0, "unacked": 0, "consumers": 0},
    }
    node = {
        "name": "rabbit@web1", "memory": 2**27, "memory_limit": 2**30, "disk_free": 2**36, "disk_limit": 2**30,
        "is_running": True, "is_here": True,
    }  # fmt: skip
    store = {
        "reachable": True, "why": "", "version": "7.0.15", "role": "primary", "memory": 2**20, "memory_limit": 2**28,
        "evicted": 0, "keys": 12, "faults": [],
    }  # fmt: skip
    known = {
        "host": "web1", "name": "web1", "release": "r1", "since": time.time() - 3600, "programs": programs,
        "queues": queues, "nodes": [node], "store": store, "broker": Versions(installed="4.0.5-1"),
        "scheduled": {"celery-ops-tick": time.time() - 9}, "deploys": [GOOD], "tick": time.time() - 8,
        "next_due": time.time() + 6, "hour": last_hour(), "now": {"shop": {"oldest": 12.5, "rate": 3.25}},
        "certificates": {"/etc/rabbitmq/tls/cert.pem": time.time() + 86400 * 80},
        "flower": FLOWER,
    }  # fmt: skip
    return Status("shop", **{**known, **more})


def last_hour() -> dict[str, Any]:
    """An hour with a rush in it, and ten minutes of which nothing is known."""
    times = [time.time() - 3590 + 10 * number for number in range(360)]
    rush = [max(0.0, 120 - abs(number - 150)) for number in range(360)]
    shop = {
        "ready": [None if 60 < number < 120 else round(42 * rush[number] / 10) + number % 7 for number in range(360)],
        "unacked": [min(3, round(one)) for one in rush],
        "consumers": [2] * 360,
        "oldest": [one / 4 for one in rush],
        "rate": [2.5 + (number % 11) / 10 + rush[number] / 40 for number in range(360)],
    }
    mail = {column: [0] * 360 for column in shop}
    return hour_of(times, {"shop": shop, "mail": mail})


def result(status: Status) -> dict[str, Any]:
    """What the module returns of it."""
    found = problems(status, has_programs=True)
    return returned(status, found, text(status, has_programs=True, has_queues=True))


def healthy() -> dict[str, Any]:
    """Two hosts with nothing wrong."""
    two = seen(host="work2", name="work2", queues={}, nodes=[], store={}, broker=Versions(), scheduled={}, next_due=0.0)
    two.programs = worker("shop-worker-default-1")
    two.flower = {}
    return {"web1": result(seen()), "work2": result(two)}


def broken() -> dict[str, Any]:
    """Hosts on which everything is wrong."""
    wrong = seen(
        watched=False,
        orphans=[{"pid": 9, "what": "beat started by hand", "seconds": 3}],
        alarms=[{"node": "rabbit@web1", "alarm": "disk"}],
        store={"reachable": False, "why": "Connection refused"},
        certificates={"/etc/rabbitmq/tls/cert.pem": time.time() + 86400 * 3},
        lock={"who": "anna@control", "what": "deploy", "at": "2026-11-26T14:40:00+0000", "renewed": 0.0},
        work={"run": "r", "who": "anna@control", "what": "deploy", "phase": "workers", "since": "noon", "pid": 9},
        draft={"action": "deploy", "who": "anna@control", "release": "r2", "phase": "workers", "begun": ["web"]},
        unsafe=[{"setting": "task_acks_late", "value": False, "write": "app.conf.task_acks_late = True"}],
        unlisted=[Unlisted("shop-worker-default-0", "worker", "gone1", "10.0.0.9:40100")],
        flower={**FLOWER, "answers": False},
        rotation=True,
        paused=[PAUSE, {**PAUSE, "what": "all", "name": "", "until": None, "why": ""}],
        deploys=[{**GOOD, "outcome": "failed: workers on work2; taken back", "to": "r2"}, GOOD],
    )
    wrong.programs = {
        **program("shop-scheduler-2", state="STOPPED", pid=0, health=""),
        **worker("shop-worker-default-1", health="deaf", why="it is connected and does not consume from shop"),
        **worker("shop-worker-mail-1", state="FATAL", pid=0, health="", slots=0, queues=[]),
        **worker(
            "shop-worker-default-0", paused=["photos"], state="STOPPING", release="r0", health="draining", retires=True
        ),
    }
    wrong.queues = {
        "shop": {"messages": 120_000, "ready": 120_000, "unacked": 0, "consumers": 0},
        "shop.dead": {
            **{"messages": 17, "ready": 17, "unacked": 0, "consumers": 0},
            "reasons": {"rejected": 12, "expired": 5},
        },
    }
    return {
        "web1": result(wrong),
        "down1": {"unreachable": True, "msg": "no route to host\nmore"},
        "odd1": {"msg": "Traceback: it broke."},
    }


def hostile() -> dict[str, Any]:
    """Names and texts that are markup wherever somebody else chooses them."""
    wrong = seen(host=HOSTILE, release=HOSTILE, deploys=[{**GOOD, "who": HOSTILE, "outcome": HOSTILE}])
    wrong.programs = worker("shop-worker-default-1", health="deaf", why=HOSTILE, queues=[HOSTILE], release=HOSTILE)
    wrong.queues = {HOSTILE: {"messages": 3, "ready": 3, "unacked": 0, "consumers": 0}}
    wrong.paused = [{**PAUSE, "name": HOSTILE, "why": HOSTILE, "who": HOSTILE}]
    wrong.unlisted = [Unlisted(HOSTILE, "worker", HOSTILE, HOSTILE)]
    return {HOSTILE: result(wrong), "down1": {"unreachable": True, "msg": HOSTILE}}
