#!/usr/bin/python
"""One deploy at a time: the lock of an application on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deploy_lock
short_description: One deploy at a time - the lock of an application on a host
description:
  - The lock is a lease in C(/run/celery-ops/<app>/deploy.lock), which needs no space on a disk. It says who holds it,
    since when, from where and for what.
  - With V(held), the action plugin first starts a keeper on the control node. It renews the lease every ten seconds
    and frees it when C(ansible-playbook) ends, however it ends. Should the control node itself die, the lease is
    stale after 45 seconds, and the next deploy takes it over and says so.
  - Work that another run has left behind on this host is told to end; the action plugin calls again until it has.
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
  wait: {description: Seconds to wait for the lock; the module itself waits up to 20., type: int, default: 0}
  told: {description: The work that was told to end already; set by the action plugin., type: str, default: ""}
author:
  - celery-ops (@celery-ops)
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
ours: {description: Whether the lock was this run's., type: bool, returned: with state=renewed and state=freed}
working:
  description: The work of another run that was told to end and has not yet; the lock is ours nevertheless.
  type: dict
  returned: with state=held
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import deploy_lease, host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import add_line
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json, write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import CALL, lease_of
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import LEASE_TIMEOUT, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

POLL = 0.5  # seconds


class Lock:
    """The lock file; every look and every change happens under a flock."""

    def __init__(self, app: str, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "deploy.lock"
        self.audit = Layout(app).audit_log
        self.before = Layout(app).base / "deploy.lock"
        """Where earlier versions of the kit have it: a deploy of theirs may be under way."""

    def __enter__(self) -> Lock:
        self.guard = os.open(self.directory / ".deploy.lock.guard", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.guard, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.guard)

    def read(self) -> dict[str, Any]:
        """Who holds it; empty when nobody does, or when the file is no lock of ours."""
        return lease_of(self.directory) or read_json(self.before)

    def write(self, holder: dict[str, Any]) -> None:
        """Note the holder as a whole."""
        write_json(self.path, holder)
        self._remove_the_one_before()

    def remove(self) -> None:
        """Let nobody hold it."""
        self.path.unlink(missing_ok=True)
        self._remove_the_one_before()

    def _remove_the_one_before(self) -> None:
        for path in (self.before, self.before.with_name(f".{self.before.name}.guard")):
            path.unlink(missing_ok=True)


def words(holder: dict[str, Any]) -> str:
    """The holder for the operator."""
    who, what, since = (holder.get(key) for key in ("who", "what", "at"))
    return f"{who} for {what} since {since}, last renewed {deploy_lease.when(holder)}"


def take(lock: Lock, options: dict[str, Any]) -> tuple[str, str]:
    """Take the lock if it is free, ours or stale: whose it is now, and what to tell."""
    with lock:
        holder = lock.read()
        ours = holder.get("id") == options["id"]
        if holder and not ours and deploy_lease.age(holder) < LEASE_TIMEOUT:
            return holder["id"], words(holder)
        known = holder if ours else {
            "id": options["id"], "who": options["who"], "what": options["what"],
            "at": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        }  # fmt: skip
        lock.write(deploy_lease.renewed(known))
        return options["id"], f"The lock of {words(holder)} was stale and is taken over." if holder and not ours else ""


def hold(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Take the lock, waiting as long as we may; then see to the end of what another run has left at work."""
    deadline = time.monotonic() + min(options["wait"], CALL)
    while True:
        holder, note = take(lock, options)
        if holder == options["id"]:
            worker = host_work.end(lock.directory, options["id"], options["told"])
            return {"note": note, **({"working": worker} if worker is not None else {})}
        if time.monotonic() >= deadline:
            return {
                "failed": True,
                "holder": holder,
                "msg": f"{options['app']} is locked by {note}. Wait for it (-e celery_app_lock_wait=600), or, if that "
                "run is gone: ansible-playbook playbooks/unlock.yml",
            }
        time.sleep(POLL)


def renew(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """A sign of life; says whether the lock is still ours."""
    with lock:
        holder = lock.read()
        ours = holder.get("id") == options["id"]
        if ours:
            lock.write(deploy_lease.renewed(holder))
    return {"ours": ours}


def free(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Let go of the lock if it is ours; says whether it was: that it was taken away meanwhile is worth telling."""
    with lock:
        ours = lock.read().get("id") == options["id"]
        if ours:
            lock.remove()
    return {"ours": ours, "note": "" if ours else "The lock is not ours."}


def unlock(lock: Lock, options: dict[str, Any]) -> dict[str, Any]:
    """Take the lock away from whoever holds it, and note that."""
    with lock:
        holder = lock.read()
        if not holder:
            return {"note": "It was free."}
        lock.remove()
    entry = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "who": options["who"], "action": "unlock",
        "outcome": f"taken from {words(holder)}",
    }  # fmt: skip
    note = f"Taken from {words(holder)}."
    try:
        add_line(lock.audit, entry)
    except OSError as error:  # a full disk is no reason to leave it locked
        note += f" That could not be written to {lock.audit}: {error.strerror}."
    return {"changed": True, "note": note}


STATES = {"held": hold, "renewed": renew, "freed": free, "unlocked": unlock}
ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": list(STATES), "default": "held"},
    "app": {"type": "str", "required": True},
    "id": {"type": "str", "default": ""},
    "who": {"type": "str", "default": ""},
    "what": {"type": "str", "default": ""},
    "wait": {"type": "int", "default": 0},
    "told": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS)
    options = module.params
    try:
        lock = Lock(options["app"], host_work.directory_of(options["app"]))
        answer = STATES[options["state"]](lock, options)
    except OperatorError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=str(host_work.unusable(lock.directory, error)))
    module.exit_json(**{"changed": False, "note": "", **answer})


if __name__ == "__main__":
    main()
