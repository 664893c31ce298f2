#!/usr/bin/python
"""One deploy at a time: the lock of an application on a host."""

from __future__ import annotations

import fcntl
import json
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.surroundings import take_over

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
      - V(renewed) is the keeper's sign of life.
      - V(unlocked) takes the lock away from whoever holds it, and notes that in the audit log.
    choices: [held, renewed, freed, unlocked]
    type: str
    default: held
  app: {description: The application's name., type: str, required: true}
  id: {description: The run of ansible-playbook; set by the action plugin., type: str, default: ""}
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
ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": list(STATES), "default": "held"},
    "app": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "who": {"type": "str", "default": ""},
    "what": {"type": "str", "default": ""},
    "wait": {"type": "int", "default": 0},
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS)
    options = module.params
    lock = Lock(options["app"])
    # A host on which nothing was ever deployed has nothing to lock.
    answer = STATES[options["state"]](lock, options) if lock.path.parent.exists() else {}
    module.exit_json(**{"changed": False, "note": "", **answer})


if __name__ == "__main__":
    main()
