"""Take an application's lock, and leave a keeper on the control node that renews and frees it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

RENEW_EVERY = 10.0  # seconds
POLL = 0.5  # seconds


def start_time(pid: int) -> str:
    """When a process began (clock ticks since boot), so that a reused pid is not taken for it; "" when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # A zombie has ended; its parent just has not looked yet.
    return "" if fields[0] in "ZX" else fields[19]


class ActionModule(ActionBase):
    """Runs the module of the same name; with state=held the keeper stays behind."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's own result."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        # The worker that runs this task is a child of ansible-playbook.
        playbook = os.getppid()
        arguments.setdefault("id", f"{os.uname().nodename}-{playbook}-{start_time(playbook)}")
        result = self._execute_module(module_args=arguments, task_vars=task_vars)
        if result.get("note"):
            Display().warning(result["note"])
        if arguments.get("state", "held") == "held" and not result.get("failed") and not self._task.check_mode:
            self.leave_keeper(playbook, arguments, task_vars)
        return result

    def leave_keeper(self, playbook: int, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> None:
        """Fork twice, so that ansible-playbook neither waits for the keeper nor takes it along when it ends."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        os.setsid()
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                self.keep(playbook, arguments, task_vars)
        os._exit(0)

    def keep(self, playbook: int, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> None:
        """Renew the lease while ansible-playbook lives, then free it. Ends early when the lock is no longer ours."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        Display().verbosity = 0
        began, renewed = start_time(playbook), time.monotonic()
        while began and start_time(playbook) == began:
            if time.monotonic() - renewed >= RENEW_EVERY:
                renewed = time.monotonic()
                answer = self._execute_module(module_args={**arguments, "state": "renewed"}, task_vars=task_vars)
                if answer.get("ours") is False:
                    return
            time.sleep(POLL)
        self._execute_module(module_args={**arguments, "state": "freed"}, task_vars=task_vars)
