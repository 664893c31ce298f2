"""What the commands that ask a running system share: the application, a deadline, one line of JSON."""

import _thread
import contextlib
import importlib.util
import json
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from celery_ops import proc
from celery_ops.errors import TAKES_NOTHING, OperatorError, PermanentError, RetryLater
from celery_ops.worker import failover

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

CLEAN_UP = 2.0
"""Seconds kept back from the time-out for undoing what a probe did."""


class Deadline:
    """The time that a probe has, which a TERM ends early."""

    def __init__(self, seconds: float) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.stopped = threading.Event()

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return 0.0 if self.stopped.is_set() else max(0.0, self.deadline - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Wait so long, less when the time is up."""
        self.stopped.wait(min(seconds, self.left))


def answer(
    key: str, timeout: float, found: dict[str, Any], probe: Callable[[Deadline, dict[str, Any]], None]
) -> NoReturn:
    """Run `probe(clock, found)`, print `found` as a line of JSON and exit: 0 where it returned, 1 where not.

    `found` starts with the keys that `probe` fills in; `key` tells the outcome, `reason` why it is no. Probes
    block in libraries; whatever they hang in, the line is there within `timeout` seconds.
    """
    line = output_alone()
    # Of the thread that watches, whatever handlers an application sets while it is imported.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    clock = Deadline(timeout - CLEAN_UP)
    found.update({key: False, "seconds": 0.0, "reason": ""})
    once = threading.Lock()

    def finish(otherwise: str = "") -> NoReturn:
        once.acquire()  # and kept: nothing comes after it
        result = {key: found.pop(key), **found}
        result["reason"] = result["reason"] or otherwise
        result["seconds"] = round(time.monotonic() - clock.started, 2)
        print(json.dumps(result), file=line, flush=True)
        leave(0 if result[key] else 1)

    def watch() -> None:
        end = clock.deadline + CLEAN_UP - 0.1
        while (left := end - time.monotonic()) > 0:
            if signal.sigtimedwait({signal.SIGTERM}, left):
                clock.stopped.set()
                end = min(end, time.monotonic() + CLEAN_UP)
        finish("no answer in time")

    # Not a threading.Thread: beside one, gevent's monkey.patch_all, by which an application may begin, breaks imports.
    _thread.start_new_thread(watch, ())
    # In the main thread, as in a worker: elsewhere an application can set no signal handlers when it is imported, and
    # finds no event loop.
    try:
        probe(clock, found)
        found.update({key: True, "reason": ""})
    except OperatorError as why:
        found["reason"] = str(why)
    except (Exception, SystemExit) as error:
        found["reason"] = f"{type(error).__name__}: {error}"
    finish()


def leave(status: int = 0) -> NoReturn:
    """End this process, which has imported an application, and what that has started.

    Not by sys.exit, which would wait for the application's threads, of which one may never end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    end_descendants(os.getpid())
    os._exit(status)


def end_descendants(pid: int) -> None:
    """End what an application starts when it is imported: it would stay, and keep open what this process writes to."""
    for child in proc.children(pid):
        with contextlib.suppress(OSError):
            os.kill(child.pid, signal.SIGSTOP)  # it starts no others meanwhile
            end_descendants(child.pid)
            os.kill(child.pid, signal.SIGKILL)


def output_alone() -> TextIO:
    """Return a file for what a command has to say on stdout, and send all else that this process writes to stderr.

    An application may print while it is imported, and so may the commands that it runs.
    """
    sys.stdout.flush()
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return output


def load_app(name: str, results: bool = False) -> "Celery":
    """Return the app as ``celery -A`` finds it; raise PermanentError when it can't be imported.

    With `results`, its result backend can be used, also one that keeps them in Django's database.
    """
    from celery.app.utils import find_app

    sys.path.insert(0, str(Path.cwd()))
    try:
        app = find_app(name)
        app.finalize()
        app.conf.broker_url  # noqa: B018 - reads the configuration, which may fail as well
        if tasks := sys.modules.get("celery_ops.tasks"):
            tasks.add_tick(app)  # as beat does
        if results and os.environ.get("DJANGO_SETTINGS_MODULE") and importlib.util.find_spec("django"):
            import django

            django.setup()  # as Celery's worker does; before, there are no models
    except Exception as error:
        problem = f"-A {name} can't be imported from {Path.cwd()}: {type(error).__name__}: {error}"
        raise PermanentError(problem) from error
    return app


def unreached(connection: "Connection") -> str:
    """Return the URLs that a connection tries, without passwords."""
    from kombu.utils.url import sanitize_url

    return ", ".join(map(sanitize_url, connection.alt)) or connection.as_uri()


@contextlib.contextmanager
def connected(app: "Celery", clock: Deadline, found: dict[str, Any]) -> "Connection":
    """Give a connection to the broker once there is one.

    Raises PermanentError when the broker refuses the credentials or the vhost, RetryLater when the time is up.
    """
    from amqp.exceptions import AccessRefused, NotAllowed

    with app.connection_for_write(connect_timeout=2) as connection:
        found["reason"] = f"broker {connection.as_uri()} can't be reached: no answer"
        while True:
            try:
                connection.connect()  # of several URLs, the next one at each failure
                break
            except (AccessRefused, NotAllowed) as error:
                raise PermanentError(
                    f"broker {connection.as_uri()} refused the credentials or the vhost ({error.reply_text}); "
                    "look at CELERY_BROKER_URL"
                ) from error
            except ssl.SSLCertVerificationError as error:
                said = error.verify_message.rstrip(".")
                raise PermanentError(
                    f"broker {connection.as_uri()} shows a certificate that is not accepted: {said}. "
                    "It has to be for the URL's host; for a CA of your own write celery_app_environment: "
                    "{SSL_CERT_FILE: /etc/ssl/certs/your-ca.pem}, or broker_use_ssl in the application's settings"
                ) from error
            except Exception as error:
                found["reason"] = f"broker {unreached(connection)} can't be reached: {error or type(error).__name__}"
            if not clock.left:
                raise RetryLater(found["reason"])
            clock.pause(0.3)
        if len(urls := failover.urls_of(app)) > 1:
            # Control commands go over connections of their own.
            failover.Nodes(app, urls).connected_to(connection)
        address = connection.as_uri()  # hides the password
        # Stands until there is a better reason: from here on, what hangs is a publish.
        found["reason"] = f"broker {address} accepts connections but {TAKES_NOTHING}"
        yield connection


def while_connected(app: "Celery", clock: Deadline, found: dict[str, Any], ask: "Callable[[Connection], None]") -> None:
    """Call `ask(connection)`; where the connection is lost, again with another one, as long as there is time."""
    from kombu.exceptions import OperationalError

    while True:
        with connected(app, clock, found) as connection:
            try:
                ask(connection)
                return
            except (*connection.connection_errors, OperationalError) as error:
                found["reason"] = f"the connection to the broker was lost: {error or type(error).__name__}"
                if not clock.left:
                    raise RetryLater(found["reason"]) from error
