"""Old generations that outlive the run which told them to stop: a process of its own waits for them and forgets them.

It holds no lock while it waits, so that no run waits for it. A run that comes meanwhile may forget them as well, and
one that comes after it was killed does.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import math
import os
import signal
import time
import xmlrpc.client
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import stopwaitsecs_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import Endpoint, ProcessInfo, Supervisord

POLL = 0.1
"""Seconds between two looks at what a run waits for."""

EVERY = 1.0
"""Seconds between two looks at what drains."""


def forget_later(conf: Path, conf_dir: ConfDir, app: str, seconds: float) -> None:
    """Leave a process that forgets what retires once it has ended, and gives up after `seconds`.

    To be called by the process that works on the host, before it answers.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if host_work.fork_away(nowhere):
        os.close(nowhere)
        return
    atexit._clear()  # the answer is the other process's
    try:
        os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 4096))  # the lock, too
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        directory = host_work.directory_of(app)
        # One about other programs as well does not wait for these alone.
        about = hashlib.sha256(" ".join(sorted(conf_dir.prefixes)).encode()).hexdigest()[:8]
        if _is_the_only_one(directory / f"drain-{about}"):
            _forget(Supervisord(Endpoint.from_conf(conf)), conf_dir, directory, seconds)
    finally:
        os._exit(0)


def await_end(
    supervisord: Supervisord, conf_dir: ConfDir, names: Collection[str], seconds: float
) -> tuple[list[str], list[str]]:
    """Wait until these, which were told to stop, have ended, and forget them; return what still drains, and warnings.

    To be called by the process that works on the host.
    """
    warnings: list[str] = []
    deadline = time.monotonic() + seconds
    while True:
        ended = not_stopping(supervisord, conf_dir)
        for name, process in ended.items():
            stopwaitsecs = stopwaitsecs_of(conf_dir.owned().get(name, ""))
            # supervisord's clock counts in whole seconds.
            lasted = process.ended - conf_dir.told_at(name) + 1 if process else 0
            if process and was_killed(process, stopwaitsecs or math.inf, lasted):
                warnings.append(killed(name, stopwaitsecs))
        if ended:
            _finish(supervisord, conf_dir)
        draining = sorted(conf_dir.retiring() & set(names))
        if not draining or time.monotonic() >= deadline:
            return draining, warnings
        time.sleep(POLL)


def was_killed(process: ProcessInfo, stopwaitsecs: float, lasted: float) -> bool:
    """Return whether supervisord killed a program that was told to stop `lasted` seconds before its end."""
    return process.down and process.exitstatus == -1 and lasted >= stopwaitsecs


def killed(name: str, stopwaitsecs: int) -> str:
    """Return what to say of an old generation that was killed."""
    return (
        f"{name} did not finish within its stopwaitsecs ({stopwaitsecs} s): supervisord killed it; its unfinished "
        "tasks are delivered again."
    )


def _is_the_only_one(path: Path) -> bool:
    """Take the file's lock, for as long as this process lives; one that waits already sees what we would."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget(supervisord: Supervisord, conf_dir: ConfDir, directory: Path, seconds: float) -> None:
    waits_for, deadline = conf_dir.retiring(), time.monotonic() + seconds
    while (now := conf_dir.retiring()) and time.monotonic() < deadline:
        if now - waits_for:  # a later run has told more to stop, and leaves them to us
            deadline = time.monotonic() + seconds
        waits_for = now
        # supervisord may be away, a run at work: the next look is as good.
        with suppress(OperatorError, xmlrpc.client.Fault, OSError):
            if not_stopping(supervisord, conf_dir):
                with _at_work(directory):
                    _finish(supervisord, conf_dir)
        time.sleep(EVERY)


def _finish(supervisord: Supervisord, conf_dir: ConfDir) -> None:
    for name, process in not_stopping(supervisord, conf_dir).items():
        if process and process.up:  # a supervisord that was started anew has started it, or it was started manually
            supervisord.stop(process)
        else:
            supervisord.remove(name)
            conf_dir.put(name, None)
    supervisord.reread()


def not_stopping(supervisord: Supervisord, conf_dir: ConfDir) -> dict[str, ProcessInfo | None]:
    """Return the programs that were told to stop and are not at it: they have ended, or were started again."""
    processes = supervisord.processes()
    found = {name: processes.get(name) for name in sorted(conf_dir.retiring())}
    return {name: process for name, process in found.items() if not process or process.up or process.down}


@contextmanager
def _at_work(directory: Path) -> Iterator[None]:
    """Be the one process that works on this host, for a moment in which nothing ends it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        file = host_work.take(directory)
        try:
            host_work.Work(file).say(what="the end of a drain", phase="drain", job="drain")
            yield
        finally:
            os.close(file)
    finally:
        signal.signal(signal.SIGTERM, before)
