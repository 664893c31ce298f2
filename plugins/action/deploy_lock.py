"""Take an application's lock, with a keeper on the control node that renews and frees it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from ansible import constants as C
from ansible.utils.display import Display
from ansible_collections.celery_ops.kit.plugins.action.deploy_notice import targets_of
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import ENDS_WITHIN
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import KEEPER_FREES, LEASE_TIMEOUT
from ansible_collections.celery_ops.kit.plugins.module_utils.notices import Notice, send_all, was_told
from ansible_collections.celery_ops.kit.plugins.plugin_utils.host_module import HostModule
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor, has_ended, run_id, start_time
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables

RENEW_EVERY = 10.0  # seconds
POLL = 0.5  # seconds
OURS, ANOTHERS = b"ours", b"held"  # what the keeper is told

Ask = Callable[..., dict[str, Any]]


class ActionModule(HostModule):
    """Runs the module of the same name; with state=held a keeper stays behind."""

    def act(self) -> dict[str, Any]:
        """What the module answers; in check mode nothing is asked."""
        if self._task.check_mode:
            return {"changed": False, "note": ""}
        # The worker that runs this task is a child of ansible-playbook.
        playbook = os.getppid()
        options = {"state": "held", "id": run_id(playbook), "who": actor(self.variables), **self._task.args}

        def ask(**changes: Any) -> dict[str, Any]:
            try:
                return self.ask({**options, **changes})
            finally:
                if changes.get("state") == "freed":  # by the keeper, which has no task for Ansible to clean up after
                    self.cleanup()

        tell = teller(options, self.variables)
        answer = take(playbook, ask, int(options.get("wait", 0)), tell) if options["state"] == "held" else ask()
        if answer.get("note"):
            Display().warning(answer["note"])
        return answer


def teller(options: dict[str, Any], variables: Variables) -> Callable[[bool], object]:
    """Return what is told whether the run has died, and tells it: of several hosts, the first one's keeper does."""
    try:
        targets = targets_of(variables)
        if not targets or variables["inventory_hostname"] != variables["ansible_play_hosts_all"][0]:
            return lambda died: None
        what, stage = options.get("what") or "deploy", str(variables["celery_app_stage"])
        look = "Look: ansible-playbook playbooks/status.yml"
        notice = Notice("died", options["app"], options["who"], what, stage=stage, detail=look)
    except Exception:  # what is wrong with a target is said where a notice is sent
        return lambda died: None
    return lambda died: was_told(options["id"]) or (died and send_all(targets, notice))


def take(playbook: int, ask: Ask, wait: int, tell: Callable[[bool], object] = lambda died: None) -> dict[str, Any]:
    """Take the lock. Its keeper is there before the lock is asked for, and is told whose it is."""
    with start_keeper(playbook, ask, tell) as keeper:
        answer = await_lock(ask, wait)
        # A failure that names no holder may have come after the lock was taken: the keeper is told nothing.
        if "holder" in answer:
            keeper.write(ANOTHERS)
        elif not answer.get("failed"):
            keeper.write(OURS)
    return answer if answer.get("failed") else await_work(ask, answer)


def await_lock(ask: Ask, wait: int) -> dict[str, Any]:
    """Ask for the lock, in calls that are short, until it is ours or so many seconds are over."""
    answer, begun = ask(wait=wait), time.monotonic()
    if answer.get("failed") and has_ended(answer.get("holder", "")):
        # Nobody has to wait for a run that ended a moment ago, only for its keeper.
        wait = max(wait, KEEPER_FREES)
    while "holder" in answer and (left := wait - (time.monotonic() - begun)) > 0:
        answer = ask(wait=int(left) + 1)
    return answer


def await_work(ask: Ask, answer: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of the work that another run has left behind on the host; the module has told it to end."""
    worker = answer.get("working")
    if worker is None:
        return answer
    what = f"{worker.get('what') or 'A run'} of {worker.get('who') or 'somebody'}"
    phase, pid, note = worker.get("phase", "?"), worker.get("pid", "?"), answer.get("note", "")
    deadline = time.monotonic() + float(worker.get("ends_within", ENDS_WITHIN))
    while (worker := answer.get("working")) is not None:
        if time.monotonic() >= deadline:
            return {
                "failed": True,
                "msg": f"{what} was interrupted in phase {phase}, and its work on this host does not end (pid {pid}). "
                f"Look at it: ps -fp {pid}; if it has to go: kill -KILL {pid}; then run this again.",
            }
        Display().display(f"Waiting for the work of an interrupted run to end: {what}, phase {phase}, pid {pid}")
        answer = ask(told=worker.get("job", ""))
        if answer.get("failed"):
            return answer
    note += f" {what}, interrupted in phase {phase}: its work on this host was ended."
    return {**answer, "note": note.strip()}


def start_keeper(playbook: int, ask: Ask, tell: Callable[[bool], object]) -> BinaryIO:
    """Fork twice, so that ansible-playbook neither waits for the keeper nor takes it along when it ends.

    Return where to write whose the lock is. Closed without a word, as by the end of this process, that is unknown.
    """
    reader, writer = os.pipe()
    began = start_time(playbook)
    child = os.fork()
    if child:
        os.close(reader)
        os.waitpid(child, 0)
        return os.fdopen(writer, "wb", buffering=0)
    os.close(writer)
    os.setsid()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            keep(playbook, began, ask, reader, tell)
    os._exit(0)


def answer_of(ask: Ask, state: str) -> dict[str, Any]:
    """The module's answer; empty where it gave none, as when the connection is lost for a moment."""
    try:
        answer = ask(state=state)
    except Exception:
        return {}
    return {} if answer.get("failed") or answer.get("unreachable") else answer


def keep(playbook: int, began: str, ask: Ask, word: int, tell: Callable[[bool], object] = lambda died: None) -> None:
    """Renew the lease while ansible-playbook lives, then free it. Ends early when the lock is not ours.

    A run that has not freed it itself, and has not told its end, died: that is told.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    Display().verbosity = 0
    said = os.read(word, len(OURS))
    if said == ANOTHERS:
        return
    renewed = time.monotonic()
    while began and start_time(playbook) == began:
        if time.monotonic() - renewed >= RENEW_EVERY:
            renewed = time.monotonic()
            if answer_of(ask, "renewed").get("ours") is False and said:
                return
        time.sleep(POLL)
    deadline = time.monotonic() + LEASE_TIMEOUT  # after which it is free anyway
    while time.monotonic() < deadline:
        answer = answer_of(ask, "freed")
        # Without a word, the host may not have taken it yet, and will: whoever asked for it was killed.
        if answer.get("ours") or (answer and said):
            tell(bool(answer.get("ours")))
            break
        time.sleep(POLL)
    # ansible-playbook removed it when it ended; to pack the module once more has made it again.
    shutil.rmtree(C.DEFAULT_LOCAL_TMP, ignore_errors=True)
