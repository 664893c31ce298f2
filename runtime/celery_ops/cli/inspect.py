"""Imports the application once and reports what it is and what it would use, as one line of JSON.

The build runs this as the application's user. What can't work is in ``refused``, before anything that runs is touched;
what loses tasks or is open to attack is in ``unsafe``. Each holds the line to write.
"""

import argparse
import importlib.machinery
import importlib.util
import json
import os
import platform
import re
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from celery_ops.inspection import named
from celery_ops.inspection import schedule as entries
from celery_ops.launch.env import RUNTIME
from celery_ops.probe import leave, output_alone
from celery_ops.worker import versions
from celery_ops.worker.conf import declared_queues

if TYPE_CHECKING:
    from celery import Celery

Report = dict[str, Any]

PACKAGES = ("celery", "kombu", "billiard", "amqp", "redis")

UNSAFE: tuple[tuple[str, Callable[[Any], bool], Any], ...] = (
    ("task_acks_late", lambda value: not value, True),
    ("task_reject_on_worker_lost", lambda value: not value, True),
    ("broker_transport_options", lambda value: not (value or {}).get("confirm_publish"), {"confirm_publish": True}),
    ("task_always_eager", bool, False),
    ("worker_direct", bool, False),  # a queue for each worker, whose name changes with each deploy
    ("accept_content", lambda value: bool({"pickle", "application/x-python-serialize"} & set(value or ())), ["json"]),
    ("result_accept_content", lambda value: "pickle" in (value or ()), ["json"]),
)
"""Settings that lose tasks or run what anybody sent: name, whether a value is unsafe, the safe value."""

CLIENTS = {
    **dict.fromkeys(("redis", "rediss", "sentinel"), "celery[redis]"),
    **dict.fromkeys(("django-db", "django-cache"), "django-celery-results"),
    **dict.fromkeys(("mongodb", "mongodb+srv"), "celery[mongodb]"),
    **{"db": "celery[sqlalchemy]", "cache": "celery[pymemcache]", "gs": "celery[gcs]"},
    **{
        kind: f"celery[{kind}]"
        for kind in (
            "arangodb", "azureblockblob", "cassandra", "consul", "cosmosdbsql", "couchbase", "couchdb", "dynamodb",
            "elasticsearch", "s3", "sqs",
        )
    },
}  # fmt: skip
"""The requirement that brings the client of a broker or backend, by the scheme of its URL."""
SERIALIZERS = {"msgpack": "celery[msgpack]", "yaml": "celery[yaml]"}
"""The requirement that brings a serializer, by its name."""
COMPRESSIONS = {"zstd": "celery[zstd]", "zstandard": "celery[zstd]", "brotli": "celery[brotli]"}
"""The requirement that brings a compression, by its name."""
DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
"""The requirement that brings a database's driver, by the module that SQLAlchemy misses."""

COMMAND_LINES = "CELERY_OPS_COMMAND_LINES"
"""The variable with the options that programs are to run with, as JSON: [{about: whose, command: worker or beat, words:
[...]}]. Not an argument: a rollback may build a release of an earlier version, which would refuse that."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Import the application and print the report."""
    parser = argparse.ArgumentParser(
        prog="celery-ops-inspect", description="Import an application and print what it is as one line of JSON."
    )
    parser.add_argument("-A", "--app", required=True, help="the application, as for celery -A")
    options = parser.parse_args(argv)
    command_lines = json.loads(os.environ.pop(COMMAND_LINES, "[]"))
    line = output_alone()
    # With one of these the application's own import may fail; what it lacks is said by its name.
    refused = [*versions.refused(), *others_of_our_name(), *hidden_by_celery(options.app)]
    report: Report = {}
    try:
        report = {"versions": installed(), "refused": refused} if refused else inspect(load(options.app), command_lines)
    except Refused as found:
        report = {"versions": installed(), "refused": list(found.args)}
    except SystemExit as end:
        problem = f"{options.app} ends the process when it is imported (sys.exit({end.code!r}), {where(end)})"
        write = "what it does as a program below: if __name__ == '__main__':"
        report = {"versions": installed(), "refused": [{"problem": problem, "write": write}]}
    except Exception:
        traceback.print_exc(file=sys.__stderr__)
    if report:
        print(json.dumps(report, default=str), file=line, flush=True)
    leave(0 if report else 1)


def others_of_our_name() -> Iterator[Report]:
    """Refuse a module that is called like the kit's runtime: a process imports only one of the two."""
    elsewhere = [path for path in (str(Path.cwd()), *sys.path) if Path(path).resolve() != RUNTIME]
    other = importlib.machinery.PathFinder.find_spec("celery_ops", elsewhere)
    if other and other.origin:  # a directory without an __init__.py hides nothing
        yield {
            "problem": f"{other.origin} has the name of the kit's runtime, and a worker would import it in its place",
            "write": "another name for it, in all imports as well; where it is a copy of the runtime: "
            'celery_app_source_exclude: ["**/celery_ops"]',
        }


def hidden_by_celery(name: str) -> Iterator[Report]:
    """Refuse a module of the application that is called like Celery's package, which is imported in its place."""
    if name.partition(":")[0] != "celery":
        return
    if (own := importlib.machinery.PathFinder.find_spec("celery", [str(Path.cwd())])) and own.origin:
        yield {
            "problem": f"{own.origin} has the name of Celery's own package, which is imported in its place",
            "write": "another name for it, such as celery_app.py, and celery_app_module: celery_app",
        }


def where(error: BaseException) -> str:
    """Return the file and line of the last code outside of Python's own that an exception came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, sys.base_prefix))]
    last = (own or frames)[-1]
    return f"{last.filename}:{last.lineno}"


class Refused(Exception):
    """The application can't be asked for more. Its arguments are the refusals."""


class NoApplication(Refused):
    """The module was imported, and there is no Celery application where ``celery -A`` looks for it."""

    def __init__(self, name: str, found: Any) -> None:
        from celery import Celery

        module = sys.modules[name.partition(":")[0]]
        applications = [one for one, value in vars(module).items() if isinstance(value, Celery)]
        factories = [
            one
            for one, value in vars(module).items()
            if isinstance(value, FunctionType) and value.__module__.startswith(module.__name__) and "create" in one
        ]
        instead = f", but a {type(found).__name__}" if found is not None else ""
        problem = f"celery -A {name} finds no Celery application{instead}"
        if applications:
            write = f"celery_app_module: {module.__name__}:{applications[0]}"
        elif factories:
            problem += f". Celery can't call the factory {factories[0]}"
            write = (
                f"a file make_celery.py with the lines `from {module.__name__} import {factories[0]}` and "
                f'`app = {factories[0]}().extensions["celery"]` (or whatever makes it), and '
                "celery_app_module: make_celery"
            )
        else:
            write = "celery_app_module: <module>:<name of the Celery application in it>"
        super().__init__({"problem": problem, "write": write})


def load(name: str) -> "Celery":
    """Return the application as a worker has it: its tasks imported, all of them bound."""
    from celery import Celery
    from celery.app.utils import find_app

    # As in a worker: the directory is on the path only while Celery imports the module, or for good by its Django part.
    try:
        app = find_app(name)
    except (AttributeError, ImportError):
        # What was imported itself has nothing where Celery looks. An error of the module's own is shown as it is.
        if name.partition(":")[0] not in sys.modules:
            raise
        raise NoApplication(name, None) from None
    if not isinstance(app, Celery):
        raise NoApplication(name, app)
    try:
        app.loader.import_default_modules()
        app.finalize()
    except Exception:
        if app.configured and (refused := list(named.missing_parts(app))):
            raise Refused(*refused) from None
        raise
    return app


def inspect(app: "Celery", command_lines: list[dict[str, Any]]) -> Report:
    """Return the report; see `UNSAFE` and `REFUSALS` for what is judged in it."""
    # With one of these Celery can tell nothing of the application.
    if refused := [*queues_as_texts(app), *named.missing_parts(app), *named.unusable_routes(app)]:
        raise Refused(*refused)
    own_scheduler, unusable = app.conf.beat_scheduler, list(unusable_options(app, command_lines))
    load_scheduler = partial(named.load_class, entry_points=entries.SCHEDULERS)
    report: Report = {
        "python": platform.python_version(),
        "versions": installed(),
        "settings": settings_of(app),
        "left": left(app),
        "default_queue": str(app.conf.task_default_queue),
        "queues": consumed(app),
        "routes": routed(app),
        "broker": broker(app),
        "backend": backend(app),
        "shows_certificate": shows_certificate(app),
        "scheduler": str(app.conf.beat_scheduler),
        "scheduler_of": "beat_scheduler" if app.conf.beat_scheduler == own_scheduler else "celery_scheduler_options",
        "scheduler_lacks": named.why_not(load_scheduler, app.conf.beat_scheduler),
        "unusable_options": unusable,
        "pools_missing": [name for name in ("eventlet", "gevent") if not importlib.util.find_spec(name)],
        "schedule": sorted(map(str, entries.entries_of(app))),
        "pool": str(app.conf.worker_pool or ""),
        "concurrency": app.conf.worker_concurrency or 0,
        "only_queues": [] if app.conf.task_create_missing_queues else sorted(map(str, app.amqp.queues)),
        "ignored": list(ignored(app)),
        "doubtful": [*named.doubtful_formats(app), *entries.doubtful_schedule(app), *lasting_threads()],
    }
    report["unsafe"] = list(unsafe(app))
    report["refused"] = [refusal for refuse in REFUSALS for refusal in refuse(app, report)]
    return report


def installed() -> dict[str, str]:
    """Return the installed version of each package that decides what works."""
    return {name: versions.version(name) for name in PACKAGES}


def settings_of(app: "Celery") -> str:
    """Return how the application takes the kit's settings; empty where it doesn't, or has replaced them since."""
    if getattr(app, "celery_ops_applied", False):
        return "celery_ops.apply"
    # Which source a setting came from Celery doesn't say; this one has no other.
    ours = app.conf.worker_consumer == "celery_ops.worker.consumer:Consumer"
    return "celery_ops.settings" if ours and "celery_ops.settings" in sys.modules else ""


def left(app: "Celery") -> list[str]:
    """Return which of the kit's settings the application keeps a value of its own for; none where it takes none."""
    if not settings_of(app):
        return []
    from celery_ops.worker import defaults

    return sorted(defaults.left(app))


def consumed(app: "Celery") -> list[str]:
    """Return the queues that a worker without -Q consumes from, the default one first.

    A `Broadcast` by its alias: its queue has another name in each process.
    """
    default = str(app.conf.task_default_queue)
    names = {str(queue.alias or name) for name, queue in app.amqp.queues.consume_from.items()}
    return sorted(names, key=lambda name: (name != default, name))


def routed(app: "Celery") -> list[str]:
    """Return the queues that routes, tasks and entries of the schedule name; of an application's own router, none."""
    # A kombu Queue has a name; its text is a description. A Broadcast is known by its alias.
    named = (getattr(queue, "alias", None) or getattr(queue, "name", queue) for queue in sent_to(app))
    return sorted(set(map(str, named)))


def sent_to(app: "Celery") -> Iterator[Any]:
    """Yield the queues, or the names of queues, that routes, tasks and entries of the schedule have."""
    from celery.app.routes import MapRoute

    named: list[Any] = []
    for route in app.amqp.router.routes or ():
        # An application's own router may have attributes of the same names.
        rules = [*route.map.values(), *route.patterns.values()] if isinstance(route, MapRoute) else []
        named += [rule if isinstance(rule, str) else dict(rule).get("queue") for rule in rules]
    named += [getattr(task, "queue", None) for task in app.tasks.values()]
    options = [entry.get("options") for entry in entries.entries_of(app).values() if isinstance(entry, Mapping)]
    named += [one.get("queue") for one in options if isinstance(one, Mapping)]
    return filter(None, named)


def without_password(url: Any) -> str:
    """Return a URL, or several, without the password in them."""
    # Up to the last @: a password with one in it, or a /, is not encoded as it should be, and is read all the same.
    return re.sub(r"(://[^:/@\s]*):[^\s;]*@", r"\1:********@", str(url or ""))


def broker(app: "Celery") -> Report:
    """Return the address that the application publishes to, and the transport."""
    try:
        url = app.connection_for_write().as_uri()
    except ImportError:  # the transport's client is missing; that is refused below
        given = app.conf.broker_write_url
        url = given if isinstance(given, str) else given[0]
    return {"url": without_password(url), "transport": scheme(url)}


def backend(app: "Celery") -> Report:
    """Return where the application keeps results: address and kind; both empty for nowhere."""
    url = without_password(app.conf.result_backend)
    if url.startswith("disabled"):
        url = ""
    return {"url": url, "kind": scheme(url)}


def scheme(url: str) -> str:
    """Return the kind of broker or backend that a URL names, without the driver: ``db`` for ``db+postgresql://``."""
    return re.match(r"mongodb\+srv|[^:+]*", url)[0]


def unsafe(app: "Celery") -> Iterator[Report]:
    """Yield each setting that loses tasks or runs what anybody sent, with the line to write."""
    for setting, is_unsafe, safe in UNSAFE:
        value = app.conf.get(setting)
        if is_unsafe(value):
            write = repr(safe)
            if isinstance(value, dict):
                # What else is in it may be a secret, and stays.
                write = f"{{**app.conf.{setting}, {repr(safe)[1:]}" if value else write
                value = {name: value.get(name) for name in safe}
            yield {"setting": setting, "value": value, "write": f"app.conf.{setting} = {write}"}
    yield from unverified_broker(app)
    if uses_redbeat(app) and app.conf.get("redbeat_lock_key", "") is not None:
        # The kit never runs two schedulers; and a full Redis evicts the lock, which has a time to live, and ends beat.
        value = app.conf.get("redbeat_lock_key") or "redbeat::lock"
        yield {"setting": "redbeat_lock_key", "value": value, "write": "app.conf.redbeat_lock_key = None"}
    if settings_of(app):
        for lack in dict.fromkeys(versions.missing_settings().values()):
            yield {"setting": "celery", "value": f"{versions.version('celery')}: {lack.loss}", "write": lack.write}


def lasting_threads() -> Iterator[Report]:
    """Name threads that the import has started and that keep a process from ending: it drains, and is killed then."""
    ended_by_python = set(getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ()))
    # The main thread by its class: eventlet's monkey_patch makes another object of it.
    threads = [thread for thread in threading.enumerate() if type(thread).__name__ != "_MainThread"]
    if lasting := sorted(thread.name for thread in threads if not thread.daemon and thread not in ended_by_python):
        yield {
            "problem": f"importing the application starts threads that are no daemons ({', '.join(lasting)}): a "
            "program that is told to stop waits for them, and is killed when its time is over",
            "write": "threading.Thread(..., daemon=True)",
        }


def ignored(app: "Celery") -> Iterator[Report]:
    """Yield a result backend of the application's own that the environment's replaces, and that is of another kind."""
    own, used = str(app.conf.first("result_backend", "CELERY_RESULT_BACKEND") or ""), backend(app)
    redis = {"rediss": "redis", "sentinel": "redis"}
    kinds = {redis.get(kind, kind) for kind in (scheme(own), used["kind"])}
    if own and used["kind"] and os.environ.get("CELERY_RESULT_BACKEND") and len(kinds) > 1:
        yield {
            "setting": "result_backend",
            "value": without_password(own),
            "used": used["url"],
            "write": "celery_app_result_backend: app",
        }


def unusable_options(app: "Celery", command_lines: list[dict[str, Any]]) -> Iterator[Report]:
    """Yield what Celery refuses of the options of programs; the scheduler that beat's options name is the report's."""
    for line in command_lines:
        try:
            found = parsed(app, line["command"], line["words"])
        except ValueError as error:
            yield {"about": line["about"], "command": line["command"], "problem": " ".join(str(error).split())}
            continue
        if line["command"] == "beat":
            app.conf.beat_scheduler = found["scheduler"]


def parsed(app: "Celery", name: str, words: list[str]) -> dict[str, Any]:
    """Return the parameters that one of Celery's commands takes options for; raise ValueError in Celery's words."""
    from celery.bin.base import CLIContext
    from celery.bin.celery import celery
    from click import ClickException, Context
    from click.exceptions import Exit

    command = celery.commands[name]
    known = {parameter.name for parameter in command.params}
    own = [*app.user_options.get(name, ()), *app.user_options.get("preload", ())]
    command.params.extend(parameter for parameter in own if parameter.name not in known)
    context = Context(
        celery, info_name="celery", obj=CLIContext(app=app, no_color=True, workdir=None), auto_envvar_prefix="CELERY"
    )
    # Its pool by default is none that has to be imported.
    pool = ["-P", "solo"] if name == "worker" else []
    try:
        with command.make_context(name, [*pool, *words], parent=context) as made:
            if names := [word for word in made.args if "=" not in word]:
                raise ValueError(f"{names[0]} is no option, nor setting=value")
            app.loader.cmdline_config_parser(made.args, namespace="worker" if name == "worker" else "celery")
            return made.params
    except Exit:
        raise ValueError("it prints a text and ends") from None
    except ClickException as error:
        raise ValueError(error.format_message()) from None
    except KeyError as error:
        raise ValueError(f"there is no setting {error}") from None


def unverified_broker(app: "Celery") -> Iterator[Report]:
    """Yield what lets others pose as the broker: over TLS the client verifies the host's name only where it is set."""
    used = broker(app)
    options = app.conf.broker_use_ssl or {}
    if used["transport"] != "amqps" and not options:
        return
    options = options if isinstance(options, dict) else {}
    host = urlsplit(used["url"]).hostname
    safe: dict[str, Any] = {} if "server_hostname" in options else {"server_hostname": host}
    if options.get("cert_reqs", ssl.CERT_REQUIRED) != ssl.CERT_REQUIRED:
        safe["cert_reqs"] = ssl.CERT_REQUIRED.value
    if safe:
        kept = "**app.conf.broker_use_ssl, " if options else ""
        yield {
            "setting": "broker_use_ssl",
            "value": {name: options.get(name) for name in safe},
            "write": f"app.conf.broker_use_ssl = {{{kept}{repr(safe)[1:]}",
        }


def shows_certificate(app: "Celery") -> bool:
    """Whether the broker gets a certificate of the application's, or asks for none: over TLS alone it can."""
    options = app.conf.broker_use_ssl or {}
    is_plain = broker(app)["transport"] != "amqps" and not options
    return is_plain or (isinstance(options, dict) and bool(options.get("certfile")))


def missing_client(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse a broker or backend that the virtualenv has no client for."""
    uses: dict[str, tuple[str, Callable[[], Any]]] = {
        "broker": (report["broker"]["transport"], lambda: app.connection_for_write().transport),
        "result backend": (report["backend"]["kind"], lambda: open_backend(app)),
    }
    for what, (kind, use) in uses.items():
        try:
            use()
        except Exception as error:
            # Whatever else a backend raises, such as a server that is away, is not for this check.
            if not isinstance(error, ImportError) and type(error).__name__ != "ImproperlyConfigured":
                continue
            if kind == "file":
                continue  # it can't write: see `unwritable_files`
            reason = without_password(" ".join(str(error).split()))
            write = f"{requirement_of(kind, error)} (in celery_app_requirements)"
            if what == "result backend" and (own := next(ignored(app), None)):
                write = f"{own['write']} (the application's own is {own['value']}), or {write}"
            yield {
                "problem": f"the application's {what} is {kind}, and its client can't be imported ({reason})",
                "write": write,
            }


def requirement_of(kind: str, error: Exception) -> str:
    """Return the requirement that brings a missing client, or the driver of a database that SQLAlchemy asks for."""
    missing = getattr(error, "name", None) or ""
    if kind == "db" and missing.partition(".")[0] not in ("", "sqlalchemy", "celery"):
        return DRIVERS.get(missing, missing)
    return CLIENTS.get(kind, f"the package that brings {kind}")


def open_backend(app: "Celery") -> None:
    """Make the backend, which imports its client; a database's driver is imported by its engine."""
    made = app.backend
    if type(made).__name__ == "DatabaseBackend" and getattr(made, "url", None):
        importlib.import_module("sqlalchemy").create_engine(made.url)


def redis_without_verification(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse a Redis over TLS that the backend does not open before it is told whether to verify certificates."""
    if report["backend"]["kind"] != "rediss":
        return
    try:
        open_backend(app)
    except ValueError as error:
        yield {
            "problem": f"the result backend can't be opened ({without_password(error)})".replace("\n", " "),
            "write": 'celery_app_result_backend: "rediss://user:password@host:6380/1?ssl_cert_reqs=required"',
        }
    except ImportError:
        return  # refused by `missing_client`


def queues_as_texts(app: "Celery") -> Iterator[Report]:
    """Refuse names in place of queues."""
    queues = declared_queues(app.conf)
    if not isinstance(queues, Mapping) and (names := [queue for queue in queues if isinstance(queue, str)]):
        made = ", ".join(f"Queue({name!r})" for name in names)
        yield {
            "problem": f"task_queues has {', '.join(map(repr, names))}: a text in place of a queue",
            "write": f"from kombu import Queue; app.conf.task_queues = [{made}]",
        }


def unusable_serializers(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse serializers that can't be used here, and messages and results that nobody would take: each is lost."""
    from kombu import serialization
    from kombu.exceptions import SerializerNotInstalled

    keeps_results = bool(report["backend"]["kind"])
    for setting, accepting in (("task_serializer", "accept_content"), ("result_serializer", "result_accept_content")):
        name = str(app.conf.get(setting))
        if setting == "result_serializer" and not keeps_results:
            continue
        if setting == "result_serializer" and app.conf.result_accept_content is None:
            accepting = "accept_content"
        given = app.conf.get(accepting) or ()
        accepted = [given] if isinstance(given, str) else list(given)
        try:
            serialization.dumps([[], {}], serializer=name)
            types = serialization.prepare_accept_content(accepted)
            if isinstance(given, str):  # Celery would take it character by character
                raise SerializerNotInstalled(f"a text in place of a list: write {accepted!r}")
        except SerializerNotInstalled as error:
            yield {
                "problem": f"{setting} is {name}, {accepting} is {accepted}, and what they name is missing ({error})",
                "write": f"{SERIALIZERS.get(name, 'the package that brings it')} (in celery_app_requirements), or "
                f"app.conf.{setting} = 'json'",
            }
            continue
        if serialization.registry.name_to_type[name] not in types:
            lost = "workers refuse each task" if setting == "task_serializer" else "nobody can read a result"
            widened = "result_accept_content" if setting == "result_serializer" else accepting
            yield {
                "problem": f"{setting} is {name}, and {accepting} is {accepted}: {lost}",
                "write": f"app.conf.{setting} = 'json', or app.conf.{widened} = {[*accepted, name]!r}",
            }


def unknown_compressions(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse a compression that is not installed: no task could be sent, or no result stored."""
    from kombu.compression import get_encoder

    for setting in ("task_compression", "result_compression"):
        try:
            name = str(app.conf.get(setting) or "")
            if name:
                get_encoder(name)
        except KeyError:
            yield {
                "problem": f"{setting} is {name}, and what compresses so is missing",
                "write": f"{COMPRESSIONS.get(name, 'the package that brings it')} (in celery_app_requirements), or "
                f"app.conf.{setting} = 'gzip'",
            }


def unwritable_files(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse files that the application's user can't write: workers end when they start, or each result is lost."""
    path = app.conf.worker_state_db
    if path and not is_writable(Path(path).resolve().parent):
        yield {
            "problem": f"worker_state_db is {path}, and the application's user can't write there",
            "write": "app.conf.worker_state_db = None (the kit keeps revoked tasks across deploys), or a path in "
            "/var/lib/<app>",
        }
    path = path_of_results(str(app.conf.result_backend or ""))
    is_file = report["backend"]["kind"] == "db"
    if path and not is_writable(path.resolve().parent if is_file else path):
        yield {
            "problem": f"the result backend is {report['backend']['url']}, and the application's user can't write "
            "there: a release is read-only",
            "write": "a path in /var/lib/<app>" if path.is_absolute() else f"celery_app_shared: [{path}]",
        }


def path_of_results(url: str) -> Path | None:
    """Return the file or directory in which a backend keeps results; None where it is a server or memory."""
    if url.startswith("file://"):
        return Path(url.removeprefix("file://").removeprefix("localhost"))
    found = re.match(r"db\+sqlite(?:\+\w+)?:///(?!:memory:)([^?]+)", url)
    return Path(found[1]) if found else None


def is_writable(directory: Path) -> bool:
    """Whether this user can make files in a directory."""
    return directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)


def routes_to_no_queue(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse routes to queues that the application neither declares nor makes: each ``delay`` would raise."""
    if app.conf.task_create_missing_queues:
        return
    for name in sorted({queue for queue in sent_to(app) if isinstance(queue, str) and not known(app, queue)}):
        yield {
            "problem": f"a route, task or entry of the schedule names the queue {name}, and with "
            "task_create_missing_queues = False the application has those of task_queues only "
            f"({', '.join(report['only_queues'])})",
            "write": f"Queue({name!r}) in task_queues, or another queue there",
        }


def known(app: "Celery", queue: str) -> bool:
    """Whether the application has a queue of this name or alias."""
    try:
        return bool(app.amqp.queues[queue])
    except KeyError:
        return False


def sentinel_without_settings(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse an application whose producers would not know the name of the kit's primary, nor how to log in."""
    options = app.conf.get("result_backend_transport_options") or {}
    of_kit = report["backend"]["kind"] == "sentinel" and os.environ.get("CELERY_OPS_SENTINEL")
    if of_kit and not report["settings"] and not options.get("master_name"):
        yield {
            "problem": "the results are kept on several hosts, and without the kit's settings a program that sends "
            "tasks does not find the primary",
            "write": "celery_ops.apply(app), or celery_app_result_store_sentinel: false with one host",
        }


def other_brokers(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse settings that lead workers or publishers to another broker: they beat CELERY_BROKER_URL."""
    ours = os.environ.get("CELERY_BROKER_URL")
    for setting in ("broker_read_url", "broker_write_url"):
        value = getattr(app.conf, setting)
        if ours and value != ours:
            yield {
                "problem": f"the application's {setting} is {without_password(value)}, and the rest of the system uses "
                "CELERY_BROKER_URL",
                "write": f"app.conf.{setting} = None (a broker of your own: celery_app_broker_url)",
            }


def quorum_queues_too_early(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse quorum queues with a Celery that asks for a prefetch which they don't have: its worker never consumes."""
    quorum = [name for name, queue in app.amqp.queues.items() if is_quorum(queue)]
    if quorum and versions.installed("celery") < versions.QUORUM:
        yield {
            "problem": f"Celery {versions.version('celery')} can't consume from quorum queues "
            f"({', '.join(sorted(quorum))})",
            "write": "celery>=5.6 (in celery_app_requirements), or no x-queue-type in task_queues",
        }


def redbeat_without_redis(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse RedBeat where it would take the broker's URL for that of a Redis: its scheduler ends at once."""
    given = app.conf.get("redbeat_redis_url") or app.conf.get("REDBEAT_REDIS_URL")
    if uses_redbeat(app) and not given and not report["broker"]["transport"].startswith("redis"):
        yield {
            "problem": "the scheduler is RedBeat, and without redbeat_redis_url it takes the broker for its Redis",
            "write": "app.conf.redbeat_redis_url = os.environ['CELERY_RESULT_BACKEND'] (or a Redis of your own)",
        }


def uses_redbeat(app: "Celery") -> bool:
    """Whether the schedule is kept by RedBeat."""
    return "redbeat" in str(app.conf.beat_scheduler).lower()


def without_remote_control(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse workers that answer nobody: readiness, drain and status ask them."""
    if not app.conf.worker_enable_remote_control:
        yield {
            "problem": "worker_enable_remote_control is False, and deploys and status.yml ask the workers",
            "write": "app.conf.worker_enable_remote_control = True",
        }


def failed_not_kept(app: "Celery", report: Report) -> Iterator[Report]:
    """Refuse to keep failed tasks for an application whose settings let them go."""
    if os.environ.get("CELERY_OPS_KEEP_FAILED") and app.conf.get("task_acks_on_failure") is not False:
        yield {
            "problem": "celery_app_keep_failed is set, and the application acknowledges tasks that fail",
            "write": "celery_ops.apply(app), and no task_acks_on_failure of its own; or celery_app_keep_failed: false",
        }


def is_quorum(queue: Any) -> bool:
    """Whether the application declares this queue as a quorum queue."""
    return (queue.queue_arguments or {}).get("x-queue-type") == "quorum"


REFUSALS: tuple[Callable[["Celery", Report], Iterator[Report]], ...] = (
    named.unusable_names,
    missing_client,
    redis_without_verification,
    unusable_serializers,
    unknown_compressions,
    unwritable_files,
    entries.unusable_schedule,
    routes_to_no_queue,
    sentinel_without_settings,
    other_brokers,
    quorum_queues_too_early,
    without_remote_control,
    redbeat_without_redis,
    failed_not_kept,
)
"""What can't work with the application as it is installed. Each yields ``problem`` and the line to ``write``."""


if __name__ == "__main__":
    main()
