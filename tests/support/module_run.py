"""A module in a process of its own, as Ansible runs it on a host."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ansible.module_utils import basic


class ModuleRun:
    """A module that runs in a forked process: what it needs is imported already, which saves half a second each."""

    def __init__(self, module: Callable[[], object], arguments: Mapping[str, Any]) -> None:
        reader, writer = os.pipe()
        self.answer = os.fdopen(reader)
        self.pid = os.fork()
        if self.pid:
            os.close(writer)
            return
        atexit._clear()
        os.dup2(writer, 1)
        os.close(writer)
        os.close(reader)
        sys.stdout = os.fdopen(1, "w")
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        basic._ANSIBLE_PROFILE = "legacy"
        try:
            module()
        except SystemExit:
            pass
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(0)

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a connection does that does not outlive the module."""
        self.signal(signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def died(self) -> bool:
        """Whether it was killed."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL

    def result(self) -> dict[str, Any]:
        """What it answers, read to its end: nobody else may hold the connection open."""
        said = self.answer.read()
        os.waitpid(self.pid, 0)
        try:
            return json.loads(said)
        except ValueError:
            pytest.fail(f"the module said: {said}")
