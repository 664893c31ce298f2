"""Revoked tasks stay revoked across deploys, restarts and reboots.

Celery keeps the ids, and the stamps of `revoke_by_stamped_headers`, in the worker's memory. Each worker also appends
those that it is told to a file of its own in ``/var/lib/<app>/revoked``, and a worker that starts reads what all of
them noted on its host. A revocation is a broadcast, so each host with a running worker has it; one that was down has
not. A line holds the time and, as JSON, an id or a header with a stamp.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from celery_ops.files import replace_text
from celery_ops.launch.env import application_name
from celery_ops.layout import Layout

KEEP = 30 * 86400
"""Seconds that a revocation is kept."""
MOST = 50_000
"""How many are kept; Celery keeps no more than that in memory either."""
MOST_STAMPS = 5_000
"""How many stamps a worker that starts knows, the newest: Celery compares those of a task with one after another."""
Revocation = str | tuple[str, Any]
"""The id of a task, or a header and its stamp."""
LARGEST = 2**23
"""Bytes of a file, after which its newer half is kept: an application may revoke tasks all day."""


def connect() -> None:
    """Make a worker of this process keep what it is told to revoke, if the guard started it."""
    program = os.environ.get("CELERY_OPS_PROGRAM")
    state = os.environ.get("CELERY_OPS_STATE_DIR")
    kept_in = Path(state, "revoked") if state else Layout(application_name("")).revoked
    if not program or not kept_in.parent.is_dir():
        return
    from celery import signals

    kept = Revocations(kept_in, program)
    signals.worker_init.connect(lambda **_: _keep(kept), weak=False)
    # Again, when it hears for itself: until then the worker before it was told alone.
    signals.worker_ready.connect(lambda **_: kept.load(), weak=False)


class Revocations:
    """The files in `directory`, of which this worker writes the one that is named like its program."""

    def __init__(self, directory: Path, program: str) -> None:
        self.directory, self.own = directory, directory / program

    def add(self, revoked: Iterable[Revocation]) -> None:
        """Note these."""
        written = (one if isinstance(one, tuple) else str(one) for one in revoked)
        lines = "".join(f"{int(time.time())} {json.dumps(one)}\n" for one in written)
        with _only_said():
            self.directory.mkdir(mode=0o750, exist_ok=True)
            with self.own.open("a", encoding="utf-8") as file:
                file.write(lines)
                size = file.tell()
            if size > LARGEST:
                _, _, newer = self.own.read_bytes()[-LARGEST // 2 :].partition(b"\n")
                replace_text(self.own, newer.decode(errors="replace"))

    def load(self) -> None:
        """Make this worker refuse what any worker noted; remove files in which all is too old, or more than is kept."""
        from celery.worker import state

        with _only_said():
            oldest, noted = time.time() - KEEP, {}
            self._remove(oldest)
            for one, stamp in self._read(oldest):
                noted[one] = max(stamp, noted.get(one, 0))
            newest = sorted(noted, key=noted.__getitem__)[-MOST:]
            state.revoked.update([one for one in newest if isinstance(one, str) and one not in state.revoked])
            _load_stamps(state.revoked_stamps, [one for one in newest if isinstance(one, tuple)][-MOST_STAMPS:])
            if len(noted) > MOST:
                self._remove(noted[newest[0]])

    def _read(self, oldest: float) -> Iterator[tuple[Revocation, int]]:
        for path in self.directory.glob("*"):
            text = ""
            with _only_said(), contextlib.suppress(FileNotFoundError):  # another worker has just removed it
                text = path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                stamp, _, quoted = line.partition(" ")
                with contextlib.suppress(ValueError, TypeError):  # half a line, of a host that lost power
                    if int(stamp) >= oldest:
                        yield _parsed(quoted), int(stamp)

    def _remove(self, oldest: float) -> None:
        """Remove the files to which nothing was added since then."""
        for path in self.directory.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _parsed(quoted: str) -> Revocation:
    found = json.loads(quoted)
    if not isinstance(found, list):
        return str(found)
    header, stamp = found
    hash(stamp)
    return str(header), stamp


def _load_stamps(known: dict[str, Any], noted: list[tuple[str, Any]]) -> None:
    by_header: dict[str, list[Any]] = {}
    for header, stamp in noted:
        by_header.setdefault(header, []).append(stamp)
    for header, stamps in by_header.items():
        have = _stamps_of(known.get(header))
        known[header] = [*have, *(one for one in stamps if one not in have)]


def _stamps_of(value: Any) -> list[Any]:
    """Return stamps as a list: Celery takes a single one as well."""
    return [] if value is None else list(value) if isinstance(value, list | tuple | set) else [value]


def _keep(kept: Revocations) -> None:
    """Load what is kept, and note what the control commands revoke from now on."""
    from celery.worker.control import Panel

    kept.load()
    _remember()
    for name in ("revoke", "terminate"):
        Panel.data[name] = _noting(Panel.data[name], kept)
    by_stamps = "revoke_by_stamped_headers"
    Panel.data[by_stamps] = _noting_stamps(Panel.data[by_stamps], kept)


def _remember() -> None:
    """Remember for as long as the files do: Celery forgets after three hours, when one started by hand says hello."""
    from celery.worker import state

    if not os.environ.get("CELERY_WORKER_REVOKE_EXPIRES"):
        state.revoked.expires = KEEP


def _noting(command: Callable[..., Any], kept: Revocations) -> Callable[..., Any]:
    def noting(state: Any, task_id: str | list[str], **options: Any) -> Any:
        kept.add([task_id] if isinstance(task_id, str) else task_id or [])
        return command(state, task_id=task_id, **options)

    return noting


def _noting_stamps(command: Callable[..., Any], kept: Revocations) -> Callable[..., Any]:
    def noting(state: Any, headers: dict[str, Any] | list[str], **options: Any) -> Any:
        answer = command(state, headers=headers, **options)  # raises for what is neither
        pairs = headers.items() if isinstance(headers, dict) else (one.split("=")[:2] for one in headers)
        kept.add([(header, stamp) for header, stamps in pairs for stamp in _stamps_of(stamps)])
        return answer

    return noting


@contextlib.contextmanager
def _only_said() -> Iterator[None]:
    """A full disk ends no worker."""
    from celery.utils.log import get_logger

    try:
        yield
    except OSError as error:
        get_logger(__name__).warning("Revocations of tasks can't be kept or read: %s", error)
