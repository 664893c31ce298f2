"""Work on a host that goes on when the control node or the connection is lost: one process at a time, under a lock.

In /run/celery-ops/<app>/: `deploy.lock`, the lease of a run of ansible-playbook; `work`, whose flock the process that
works on the host holds, and which says what that is; `answer-<job>`, what such a process has answered.
Nothing here needs space on a disk.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.deploy_lease import age
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import KIT_RUN, LEASE_TIMEOUT

RUN = KIT_RUN

OPTIONS: dict[str, Any] = {
    "run": {"type": "str", "default": ""},
    "phase": {"type": "str", "default": ""},
    "job": {"type": "str", "default": ""},
}
"""What a module needs beside `app` to work here; its action plugin (plugin_utils/host_module.py) sets them."""

CALL = 20.0
"""Seconds that one call waits: shorter than the time after which a firewall drops an idle connection."""


POLL = 0.03
"""Seconds between two looks at a process that works."""

EXIT_WITHIN = 10.0
"""Seconds for a process that has answered to be gone."""

ENDS_WITHIN = 60.0
"""Seconds within which work ends that was told to, unless it says otherwise."""

KEEP_ANSWERS = 3600.0
"""Seconds after which an answer that nobody fetched is removed."""


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end."""


class Interrupted(BaseException):
    """A signal asks us to end."""


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal: end, once. Whatever comes after it is ignored, so that nothing interrupts what is undone."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(f"Interrupted by {signal.Signals(number).name}")


@contextlib.contextmanager
def uninterrupted() -> Iterator[set[signal.Signals]]:
    """Hold back the signals that end us, for a moment in which one would leave things half done.

    Gives what was held back before, which a process that is started meanwhile would inherit.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def directory_of(app: str) -> Path:
    """The application's directory in /run, made when it is missing. Raises OperatorError."""
    directory = RUN / app
    try:
        for path in (RUN, directory):
            if not path.is_dir():
                path.mkdir(exist_ok=True)
                path.chmod(0o755)  # whatever the umask
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
    except OSError as error:
        raise unusable(directory, error) from error
    return directory


def unusable(path: Path, error: OSError) -> OperatorError:
    """What to say when /run can't be written."""
    return OperatorError(
        f"{path} can't be written ({error.strerror}). Deploy and rollback keep their lock there. "
        f"Run as root (become: true), with some space in /run: df -h /run"
    )


def lease_of(directory: Path) -> dict[str, Any]:
    """The lease of the run that holds the deploy lock; empty when nobody does."""
    return read_json(directory / "deploy.lock")


def worker_of(directory: Path) -> dict[str, Any] | None:
    """The process that works on this host; None when there is none, empty when it has not said yet what it does."""
    try:
        file = os.open(directory / "work", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_json(directory / "work")
    finally:
        os.close(file)
    return None


def words(worker: dict[str, Any]) -> str:
    """The work for the operator."""
    run, who, phase, since = (worker.get(key) for key in ("what", "who", "phase", "since"))
    return f"{run or 'a run'} of {who or 'somebody'}, phase {phase or '?'}, since {since or '?'}"


class Work:
    """The work of this process; without a file, as in check mode, it is nobody's business."""

    def __init__(self, file: int | None = None) -> None:
        self._file = file
        self._said: dict[str, Any] = {}

    def say(self, **changes: Any) -> None:
        """Say what the work is, or more of it."""
        if self._file is None:
            return
        self._said |= changes
        text = json.dumps(self._said).encode() + b"\n"
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def close(self) -> None:
        """Leave the work to the process that was forked."""
        if self._file is not None:
            os.close(self._file)


def take(directory: Path) -> int:
    """Take the flock; return its file. Raises OperatorError when another process works on."""
    file = os.open(directory / "work", os.O_RDWR | os.O_CREAT, 0o600)  # a reader could hold the flock as well
    deadline = time.monotonic() + EXIT_WITHIN
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(file)
                raise OperatorError(
                    f"Another process works on this host: {words(worker_of(directory) or {})}. Wait until it is done "
                    "(ansible-playbook playbooks/status.yml shows it), or deploy or roll back: that takes over."
                ) from None
        time.sleep(POLL)


def refuse_without_lock(app: str, directory: Path, run: str) -> dict[str, Any]:
    """Our lease, if there is one. Raises OperatorError when the lock is another run's by now."""
    lease = lease_of(directory)
    if run and lease and lease.get("id") != run:
        if age(lease) < LEASE_TIMEOUT:
            raise OperatorError(
                f"This run has lost the deploy lock of {app} to {lease.get('who')} ({lease.get('what')} since "
                f"{lease.get('at')}), and does nothing more on this host."
            )
        return {}
    return lease


def detach(module: AnsibleModule, phase: str) -> Work:
    """Go on in a process of its own, which neither ends with the connection nor with the control node.

    The call itself answers with the answer of that process or, when there is none within CALL seconds, with
    {"running": job}; called with O(job), the module waits again. A process that gets SIGTERM raises Interrupted, once.
    """
    options = module.params
    if module.check_mode or not options["app"]:
        return Work()
    try:
        directory = directory_of(options["app"])
        if options["job"]:
            fetch(directory, options["job"])
        work = Work(take(directory))
        lease = refuse_without_lock(options["app"], directory, options["run"])
        prune(directory)
        job = uuid.uuid4().hex[:12]
        answer = os.open(directory / f".answer-{job}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        known = {"run": options["run"], "who": lease.get("who", ""), "what": lease.get("what", "")}
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        work.say(job=job, **known, phase=phase, since=since, ends_within=ENDS_WITHIN)
    except OSError as error:
        module.fail_json(msg=str(unusable(RUN / options["app"], error)))
    except OperatorError as error:
        module.fail_json(msg=str(error))
    if fork_away(answer):
        work.close()
        os.close(answer)
        try:
            fetch(directory, job)
        except SystemExit:
            sys.stdout.flush()
            os._exit(0)  # past Ansible's wrapper, which removes the files that the other process runs from
    os.close(answer)
    _answer_at_exit(directory, job)
    work.say(pid=os.getpid())
    return work


def fork_away(output: int) -> int:
    """Fork a process that lets go of the connection; return its pid, or 0 in it. What it prints goes to `output`."""
    if pid := os.fork():
        return pid
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nowhere, output, output)):
        os.dup2(file, number)
    os.close(nowhere)
    return 0


def _answer_at_exit(directory: Path, job: str) -> None:
    """Complete the answer, which is what was printed, when this process ends; on SIGTERM it raises Interrupted."""
    signal.signal(signal.SIGTERM, interrupt)

    def complete() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        (directory / f".answer-{job}").rename(directory / f"answer-{job}")

    atexit.register(complete)


def fetch(directory: Path, job: str) -> NoReturn:
    """Answer with what the job answered, that it runs, or that it ended without an answer.

    Not by AnsibleModule, which would import more: a process that ends removes the files that this one runs from.
    """
    path, deadline = directory / f"answer-{Path(job).name}", time.monotonic() + CALL
    while True:
        worker = worker_of(directory)  # first: one that ends now has answered before
        if path.exists():
            text = path.read_text()
            path.unlink()
            break
        if worker is None or worker.get("job", job) != job:
            reason = (
                "The process that worked on this host ended without an answer: it was killed, the host ran out of "
                "memory (journalctl -k | grep -i 'out of memory') or was started again, or /run is full (df -h /run). "
                "See how far it came: ansible-playbook playbooks/status.yml; then deploy again, or roll back: "
                "ansible-playbook playbooks/rollback.yml"
            )
            text = json.dumps({"failed": True, "msg": reason})
            break
        if time.monotonic() >= deadline:
            text = json.dumps({"changed": False, "running": job})
            break
        time.sleep(POLL)
    print(text)
    sys.exit(0)


def prune(directory: Path) -> None:
    """Remove answers that nobody fetched; the caller has the flock, so that none of them is being written."""
    for path in directory.glob("*answer-*"):
        if path.name.startswith(".") or time.time() - path.stat().st_mtime > KEEP_ANSWERS:
            path.unlink(missing_ok=True)


def end(directory: Path, run: str, told: str) -> dict[str, Any] | None:
    """Tell the process that works for another run to end, unless that is the job that was told before.

    Return it while it works on, waiting up to CALL seconds for one that was told before; None when nobody does.
    """
    deadline = time.monotonic() + (CALL if told else 0)
    while True:
        worker = worker_of(directory)
        if worker is None or worker.get("run", "") == run:
            return None
        if worker.get("pid") and worker["job"] != told:
            told = worker["job"]
            with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                os.kill(worker["pid"], signal.SIGTERM)
        if time.monotonic() >= deadline:
            return worker
        time.sleep(POLL)
