"""kombu's broker in a directory, made fit for several processes: an application imports this before it connects.

kombu creates a message's file, and that of an exchange, before it writes it: a worker that reads it in between
finds it empty and ends with JSONDecodeError. Here each access has the directory to itself.
"""

import fcntl
import importlib
from contextlib import contextmanager
from pathlib import Path

from celery import _state
from kombu.transport import TRANSPORT_ALIASES, filesystem


class Channel(filesystem.Channel):
    @contextmanager
    def _alone(self):
        self.control_folder.mkdir(exist_ok=True)
        with (self.control_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def get_table(self, exchange):
        with self._alone():
            return super().get_table(exchange)

    def _queue_bind(self, *binding):
        with self._alone():
            super()._queue_bind(*binding)

    def _delete(self, *binding, **options):
        with self._alone():
            super()._delete(*binding, **options)

    def _put(self, queue, payload, **options):
        with self._alone():
            super()._put(queue, payload, **options)

    def _get(self, queue):
        with self._alone():
            return super()._get(queue)


class Transport(filesystem.Transport):
    Channel = Channel


TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"


HEAD = """
from pathlib import Path
import support.directory_broker
from celery import Celery
app = Celery("demo", broker="filesystem://")
app.conf.broker_transport_options = {{"data_folder_in": "{directory}/data", "data_folder_out": "{directory}/data",
    "control_folder": "{directory}/control", "polling_interval": 0.1}}
app.conf.worker_hijack_root_logger = False
"""


def application(directory: Path, tasks: str):
    """Write `demo.py`, an application with these tasks whose broker is the directory, and return it."""
    for name in ("data", "control"):
        (directory / name).mkdir()
    code = HEAD.format(directory=directory) + tasks
    (directory / "demo.py").write_text(code)
    importlib.import_module("celery_ops.tasks")  # its tasks stay known to all applications
    known = set(_state._on_app_finalizers)
    found: dict = {"__name__": "demo"}
    exec(code, found)
    _state._on_app_finalizers.intersection_update(known)  # and this one's tasks are no other test's
    return found["app"]
