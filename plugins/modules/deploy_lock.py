#!/usr/bin/python
"""One deploy at a time: the lock of an application on a host.

A module of Ansible's jsonargs kind, one text with its arguments inside: every deploy begins with it, and a lock is
renewed every ten seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

DOCUMENTATION = r"""
module: deploy_lock
short_description: One deploy at a time - the lock of an application on a host
description:
  - The lock is a lease in C(/srv/<app>/deploy.lock). It says who holds it, since when, from where and for what.
  - With V(held), the action plugin leaves a keeper behind on the control node. It renews the lease every ten seconds
    and frees it when C(ansible-playbook) ends, however it ends. Should the control node itself die, the lease is
    stale after 45 seconds, and the next deploy takes it over and says so.
options:
  state:
    description:
      - V(held) takes the lock or fails, saying who has it.
      - V(freed) acts only on a lock that is ours.
      - V(unlocked) takes the lock away from whoever holds it, and notes that in the audit log.
    choices: [held, freed, unlocked]
    default: held
  app: {description: The application's name., type: str, required: true}
  who: {description: User and control node., type: str, default: ""}
  what: {description: What is being done., type: str, default: ""}
  wait: {description: Seconds to wait for the lock., type: int, default: 0}
author: The celery-ops authors
"""
EXAMPLES = r"""
- deploy_lock:
    app: shop
    who: anna@control
    what: deploy
"""
RETURN = r"""
note: {description: "What is worth telling: a lock taken over, or taken away.", type: str, returned: always}
holder: {description: The id of whoever has the lock., type: str, returned: when it is another's}
"""

# JSON never has three quotes in a row.
ARGUMENTS = r"""<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>"""
DEFAULTS = {"state": "held", "who": "", "what": "", "wait": 0}
STALE_AFTER = 45.0  # seconds without a renewal
POLL = 0.5  # seconds


class Lock:
    """The lock file; every look and every change happens under a flock."""

    def __init__(self, app: str) -> None:
        self.path = Path(f"/srv/{app}/deploy.lock")
        self.audit = Path(f"/var/log/{app}/deploys.log")

    def __enter__(self) -> Lock:
        self.guard = self.path.with_name(".deploy.lock.guard").open("w")
        fcntl.flock(self.guard, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self.guard.close()

    def read(self) -> dict[str, Any]:
        """Who holds it; empty when nobody does, or when the file is no lock of ours."""
        try:
            return json.loads(self.path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def write(self, holder: dict[str, Any]) -> None:
        """Note the holder as a whole."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(holder) + "\n")
        fresh.replace(self.path)


def age(holder: dict[str, Any]) -> float:
    """Seconds since the holder's last sign of life."""
    return time.time() - float(holder.get("renewed", 0))


def words(holder: dict[str, Any]) -> str:
    """The holder for the operator."""
    who, what, since = (holder.get(key) for key in ("who", "what", "at"))
    return f"{who} for {what} since {since}, last sign of life {age(holder):.0f} s ago"


def take(lock: Lock, options: dict[str, Any]) -> tuple[str, str]:
    """Take the lock if it is free, ours or stale: whose it is now, and what to tell."""
    with lock:
        holder = lock.read()
        if holder and holder["id"] != options["id"] and age(holder) < STALE_AFTER:
            return holder["id"], words(holder)
        now = time.time()
        lock.write(
            {
                "id": options["id"], "who": options["who"], "what": options["what"],
                "at": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now)), "renewed": now,
            }
        )  # fmt: skip
        stale = bool(holder) and holder["id"] != options["id"]
        return options["id"], f"The lock of {words(holder)} was stale and is taken over." if stale else ""


def hold(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Take the lock, waiting as long as we may."""
    deadline = time.monotonic() + options["wait"]
    while True:
        holder, note = take(lock, options)
        if holder == options["id"]:
            return {"note": note}
        if time.monotonic() >= deadline:
            return {
                "failed": True,
                "holder": holder,
                "msg": f"{options['app']} is locked by {note}. Wait for it (-e celery_app_lock_wait=600), or, if you "
                "know that it is dead: ansible-playbook playbooks/unlock.yml",
            }
        time.sleep(POLL)


def renew(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """A sign of life; says whether the lock is still ours."""
    with lock:
        holder = lock.read()
        ours = holder.get("id") == options["id"]
        if ours:
            lock.write({**holder, "renewed": time.time()})
    return {"ours": ours}


def free(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Let go of the lock if it is ours; that it was taken away meanwhile is worth telling."""
    with lock:
        ours = lock.read().get("id") == options["id"]
        if ours:
            lock.path.unlink()
    return {} if ours else {"note": "The lock is not ours."}


def unlock(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Take the lock away from whoever holds it, and note that."""
    with lock:
        holder = lock.read()
        if not holder:
            return {"note": "It was free."}
        lock.path.unlink()
        entry = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "who": options["who"], "action": "unlock",
            "outcome": f"taken from {words(holder)}",
        }  # fmt: skip
        with lock.audit.open("a") as log:
            log.write(json.dumps(entry) + "\n")
    return {"changed": True, "note": f"Taken from {words(holder)}."}


STATES = {"held": hold, "renewed": renew, "freed": free, "unlocked": unlock}


def main() -> None:
    """Entry point: the arguments are above, the answer is JSON on standard output."""
    # Whatever the login has: hardened hosts have a umask of 027 or 077, and `su` no sbin.
    os.umask(0o022)
    os.environ["PATH"] = f"/usr/local/sbin:/usr/sbin:/sbin:{os.environ.get('PATH', os.defpath)}"
    options = {**DEFAULTS, **json.loads(ARGUMENTS)}
    lock = Lock(options["app"])
    # A host on which nothing was ever deployed has nothing to lock.
    answer = STATES[options["state"]](lock, options) if lock.path.parent.exists() else {}
    print(json.dumps({"changed": False, "note": "", **answer}))


if __name__ == "__main__":
    main()
