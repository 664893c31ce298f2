"""Look at what supervisord runs, what is in conf.d, and how that differs from what is intended."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.conf import ConfDir, Parser
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.plan import Seen, orphans_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.rpc import (
    Endpoint,
    NoSupervisord,
    ProcessInfo,
    Reread,
    Supervisord,
)

POLL = 0.2
"""Seconds between two looks."""


def connect(conf: Path, wait: float) -> Supervisord:
    """Return the supervisord that this configuration is of, once it answers. Raises OperatorError after `wait` seconds.

    That is NoSupervisord where none runs, or none is installed.
    """
    try:
        import supervisor  # noqa: F401
    except ImportError:
        raise NoSupervisord(
            f"{sys.executable} can't import supervisor. Install Debian's package (apt-get install supervisor) and let "
            f"ansible_python_interpreter be /usr/bin/python3."
        ) from None
    try:
        supervisord = Supervisord(Endpoint.from_conf(conf))
    except OperatorError as error:
        raise error if conf.exists() else NoSupervisord(str(error)) from None
    supervisord.await_answer(wait)
    return supervisord


def first_look(supervisord: Supervisord, conf_dir: ConfDir) -> Seen:
    """Return what runs and what is in conf.d, as names may depend on it."""
    return Seen(conf_dir.owned(), conf_dir.provisional(), supervisord.processes())


def look(
    supervisord: Supervisord,
    conf: Path,
    conf_dir: ConfDir,
    programs: Collection[Generation],
    *,
    absent: bool = False,
    wait: float = 0.0,
) -> Seen:
    """Return all that a plan depends on, `wait` seconds at most after the intended programs have begun to come up.

    `absent`: nothing is intended, and a broken configuration is no obstacle. Asks supervisord to read its files anew.
    Raises OperatorError for an intended conf that Supervisor's parser refuses, and for what it refuses elsewhere.
    """
    files = conf_dir.owned()
    parser = Parser(conf, conf_dir, supervisord.environment())
    try:
        current = parser.groups({})
    except ValueError:
        current = {}
    texts = {one.name: one.conf for one in programs}
    written = [name for name, text in texts.items() if files.get(name) != text]
    intended = current if absent else parser.check(texts, written)
    reread = Reread(frozenset(), frozenset(), frozenset())
    try:
        reread = supervisord.reread()
    except OperatorError:
        if not (absent or written):
            raise
    processes = _processes_at_rest(supervisord, set(texts), wait)
    # What is loaded can't be asked for, only whether it differs from the file. Where the file differs from both, the
    # file is the likely culprit: it was edited. Once the file is right, `Reload` looks again.
    stale = {
        name
        for name in texts
        if name in processes and name in current and (name in reread.changed) == (current[name] == intended[name])
    }
    ours = None if absent else {name for one in programs for name in one.predecessors}
    return Seen(
        files,
        conf_dir.provisional(),
        processes,
        stale,
        orphans_of(conf_dir.prefixes, ours, reread.removed),
        {name: group.process_configs[0].stopwaitsecs for name, group in intended.items() if group.process_configs},
    )


def _processes_at_rest(supervisord: Supervisord, names: set[str], wait: float) -> dict[str, ProcessInfo]:
    """Return all processes, when none of these is on its way up or down."""
    deadline = time.monotonic() + wait
    while True:
        processes = supervisord.processes()
        moving = [name for name in names & set(processes) if processes[name].state in ("STARTING", "STOPPING")]
        if not moving or time.monotonic() >= deadline:
            return processes
        time.sleep(POLL)
