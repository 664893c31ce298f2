"""Take an application's lock, and leave a keeper on the control node that renews and frees it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

RENEW_EVERY = 10.0  # seconds
POLL = 0.5  # seconds
KEEPER_FREES = 10  # seconds at most until the keeper of a run that has ended has freed its lock


def start_time(pid: int) -> str:
    """When a process began (clock ticks since boot), so that a reused pid is not taken for it; "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # A zombie has ended; its parent just has not looked yet.
    return "" if fields[0] in "ZX" else fields[19]


def run_id(playbook: int) -> str:
    """The name of a run of ansible-playbook, under which it holds a lock."""
    return f"{os.uname().nodename}-{playbook}-{start_time(playbook)}"


def has_ended(holder: str) -> bool:
    """Whether that run was started on this control node and is over."""
    node, _, playbook = holder.rpartition("-")[0].rpartition("-")
    return node == os.uname().nodename and playbook.isdecimal() and run_id(int(playbook)) != holder


class ActionModule(ActionBase):
    """Runs the module of the same name; with state=held a keeper stays behind."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the module answers; in check mode nothing is asked."""
        super().run(tmp, task_vars)
        if self._task.check_mode:
            return {"changed": False, "note": ""}
        # The worker that runs this task is a child of ansible-playbook.
        playbook = os.getppid()
        options = {"state": "held", "id": run_id(playbook), **self._task.args}
        options["wait"] = int(options.get("wait", 0))

        # A renewal every ten seconds is nothing for the host's journal.
        quiet = {**(task_vars or {}), "ansible_no_target_syslog": True}

        def ask(**changes: Any) -> dict[str, Any]:
            return self._execute_module(module_args={**options, **changes}, task_vars=quiet)

        answer = ask()
        if answer.get("failed") and has_ended(answer.get("holder", "")):
            # Nobody has to wait for a run that ended a moment ago, only for its keeper.
            answer = ask(wait=max(options["wait"], KEEPER_FREES))
        if answer.get("note"):
            Display().warning(answer["note"])
        if options["state"] == "held" and not answer.get("failed"):
            leave_keeper(playbook, ask)
        return answer


def leave_keeper(playbook: int, ask: Callable[..., dict[str, Any]]) -> None:
    """Fork twice, so that ansible-playbook neither waits for the keeper nor takes it along when it ends."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            keep(playbook, ask)
    os._exit(0)


def keep(playbook: int, ask: Callable[..., dict[str, Any]]) -> None:
    """Renew the lease while ansible-playbook lives, then free it. Ends early when the lock is no longer ours."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    Display().verbosity = 0
    began, renewed = start_time(playbook), time.monotonic()
    while began and start_time(playbook) == began:
        if time.monotonic() - renewed >= RENEW_EVERY:
            renewed = time.monotonic()
            if ask(state="renewed").get("ours") is False:
                return
        time.sleep(POLL)
    ask(state="freed")
