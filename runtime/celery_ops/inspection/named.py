"""What settings and tasks name by a text: a class, a function, a format, a serializer. Is it there, and of use?

Celery takes such a text as it is, and fails where it uses it: the worker or beat when it starts, or each ``delay``.
Here each is used as Celery does. `SETTINGS`, `TASKS` and `PARTS` are the tables.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

Refusal = dict[str, str]
"""``problem`` and the line to ``write``."""

CLASS = "'package.module:Class'"


def load_class(name: Any, entry_points: str = "") -> Any:
    """Load a class as Celery does, also by a package's short name. Raises what Python does, TypeError if it is none."""
    from celery.utils.imports import load_extension_class_names, symbol_by_name

    aliases = dict(load_extension_class_names(entry_points) or ()) if entry_points else {}
    return called(symbol_by_name(name, aliases=aliases))


def called(found: Any) -> Any:
    """Raise TypeError for what can't be called."""
    if not callable(found):
        raise TypeError(f"it is a {type(found).__name__}, not a class")
    return found


def load_failover(name: Any) -> None:
    """Take a strategy as kombu does: it loads no text."""
    from kombu.connection import failover_strategies

    if not callable(failover_strategies.get(name) or name):
        raise TypeError(f"it is neither a function nor one of {', '.join(sorted(failover_strategies))}")


def format_for(task: bool) -> Callable[[Any], None]:
    """Return what makes the formatter of a worker's lines, or of its tasks' lines."""

    def make(text: Any) -> None:
        formatter_of(text, task)

    return make


def formatter_of(text: Any, task: bool) -> logging.Formatter:
    """Return Celery's formatter. Raises ValueError for a format that is none."""
    from celery.app.log import ColorFormatter, TaskFormatter

    return (TaskFormatter if task else ColorFormatter)(text, use_color=False)


def take_level(name: Any) -> None:
    """Look a level up as Celery does."""
    from celery.utils.log import mlevel

    mlevel(name)


def take_rate(limit: Any) -> None:
    """Read a rate limit as Celery does."""
    from celery.utils.time import rate

    rate(limit)


def take_serializer(name: Any) -> None:
    """Encode something with a serializer."""
    from kombu import serialization

    serialization.dumps([[], {}], serializer=name)


def take_compression(name: Any) -> None:
    """Look up what compresses so."""
    from kombu.compression import get_encoder

    get_encoder(name)


SETTINGS: tuple[tuple[str, Callable[[Any], None], str], ...] = (
    ("worker_consumer", load_class, CLASS),
    ("worker_timer", load_class, CLASS),
    ("worker_autoscaler", load_class, CLASS),
    ("worker_agent", load_class, CLASS),
    ("database_engine_callback", load_class, "'package.module:function'"),
    ("broker_failover_strategy", load_failover, "'shuffle'"),
    ("event_serializer", take_serializer, "'json'"),
    ("worker_log_format", format_for(task=False), "'%(asctime)s %(levelname)s %(message)s'"),
    ("worker_task_log_format", format_for(task=True), "'%(asctime)s %(levelname)s %(task_name)s: %(message)s'"),
    ("worker_redirect_stdouts_level", take_level, "'WARNING'"),
    ("task_default_rate_limit", take_rate, "'100/m'"),
)
"""Setting, what uses it as Celery does and raises what Celery would, and what to write.

Elsewhere: task_routes (`unusable_routes`), worker_pool, beat_scheduler and what needs a requirement (`cli.inspect`).
"""
NUMBERS = (
    "broker_connection_max_retries", "broker_connection_timeout", "broker_pool_acquire_timeout", "broker_pool_limit",
    "redis_max_connections", "task_default_priority", "task_protocol", "task_queue_max_priority", "task_repr_maxlevels",
    "worker_max_memory_per_child", "worker_max_tasks_per_child",
)  # fmt: skip
"""Settings with which a text of digits, as of an environment variable, ends a worker or each ``delay``."""
TASKS: tuple[tuple[str, str, Callable[[Any], None], str], ...] = (
    ("Strategy", "", load_class, CLASS),
    ("Request", "", load_class, CLASS),
    ("rate_limit", "task_default_rate_limit", take_rate, "'100/m'"),
    ("serializer", "task_serializer", take_serializer, "'json'"),
    ("compression", "task_compression", take_compression, "'gzip'"),
)
"""The same of a task's attributes, each with the setting that it comes from where a task has none of its own."""
PARTS = {"task_cls": "task_cls", "amqp_cls": "amqp", "control_cls": "control", "events_cls": "events", "log_cls": "log"}
"""Attributes of an application that may name a class, and the argument of ``Celery()`` for each."""


def reason_of(error: Exception) -> str:
    """Return why a name was of no use, in one line."""
    text = " ".join(str(error).split())
    # Whatever the module that is named raises when it is imported. A TypeError here may be our own.
    plain = isinstance(error, (ImportError, AttributeError, TypeError, ValueError))
    return text if text and plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def why_not(use: Callable[[Any], Any], value: Any) -> str:
    """Return why a value is of no use; empty where it is."""
    try:
        use(value)
    except Exception as error:
        return reason_of(error)
    return ""


def unusable_names(app: "Celery", *_: Any) -> Iterator[Refusal]:
    """Refuse what settings and tasks name and Celery can't use: a worker ends when it starts, or nothing is sent."""
    from celery.app.defaults import DEFAULTS

    for setting, use, example in SETTINGS:
        value = app.conf.get(setting)
        if not value or value == DEFAULTS.get(setting) or (is_log(setting) and has_own_logging()):
            continue
        if why := why_not(use, value):
            verb = "loaded" if example.startswith("'package.") else "used"
            yield {
                "problem": f"{setting} is {value}, which can't be {verb} ({why})",
                "write": or_path(value, f"app.conf.{setting} = {example}, or leave it out"),
            }
    for setting in NUMBERS:
        if isinstance(value := app.conf.get(setting), str):
            yield {
                "problem": f"{setting} is {value!r}, a text, and has to be a number",
                "write": f"app.conf.{setting} = {'int' if value.isdigit() else 'float'}({value!r})",
            }
    told = set()
    for name, task in sorted(app.tasks.items()):
        for attribute, setting, use, example in TASKS:
            value = getattr(task, attribute, None)
            if not value or (setting and value == app.conf.get(setting)) or (attribute, str(value)) in told:
                continue
            if why := why_not(use, value):
                told.add((attribute, str(value)))
                yield {
                    "problem": f"the task {name} has {attribute} {value}, which can't be used ({why})",
                    "write": f"@app.task({attribute}={example}), or leave it out",
                }
    yield from unusable_steps(app)


def or_path(name: Any, write: str) -> str:
    """Return what to write for a name: where its module is in the application's directory, how Celery looks there."""
    module = re.split(r"[.:]", str(name))[0]
    is_here = (Path.cwd() / f"{module}.py").is_file() or (Path.cwd() / module / "__init__.py").is_file()
    if is_here and module not in sys.modules:
        return (
            "celery_app_environment: {PYTHONPATH: .} (Celery looks in the application's directory only while it "
            f"imports the application), or `import {module}` there"
        )
    return write


def is_log(setting: str) -> bool:
    """Whether a setting is of Celery's own logging."""
    return setting.startswith(("worker_log_", "worker_task_log_"))


def has_own_logging() -> bool:
    """Whether the application sets up its logging itself: Celery does nothing of it then."""
    from celery import signals

    return bool(signals.setup_logging.receivers)


def unusable_steps(app: "Celery") -> Iterator[Refusal]:
    """Refuse bootsteps of the application's own that a worker can't put in order with Celery's."""
    from celery.worker import WorkController
    from celery.worker.consumer import Consumer

    for name, owner in (("worker", WorkController), ("consumer", Consumer)):
        steps = app.steps[name]

        def arrange(steps: Any, blueprint: Any = owner.Blueprint) -> None:
            made = blueprint(steps=steps)
            made.steps = made.claim_steps()
            made._finalize_steps(made.steps)

        if steps and (why := why_not(arrange, steps)):
            listed = ", ".join(sorted(str(getattr(step, "__name__", step)) for step in steps))
            yield {
                "problem": f"app.steps[{name!r}] has {listed}, and no worker can start with it ({why})",
                "write": "requires = {'celery.worker.components:Pool'} (a set of paths) in the step's class",
            }


def missing_parts(app: "Celery") -> Iterator[Refusal]:
    """Refuse classes that the application itself is to be made of. Without them Celery can tell nothing of it."""
    for attribute, argument in PARTS.items():
        value = getattr(app, attribute, None)
        if isinstance(value, str) and (why := why_not(load_class, value)):
            yield {
                "problem": f"Celery(..., {argument}={value!r}) names what can't be loaded ({why})",
                "write": f"Celery(..., {argument}={CLASS}), or leave it out",
            }
    annotations = app.conf.get("task_annotations") or ()
    for one in annotations if isinstance(annotations, (list, tuple)) else [annotations]:
        if isinstance(one, str) and (why := why_not(load_class, one)):
            yield {
                "problem": f"task_annotations is {one}, which can't be loaded ({why})",
                "write": f"app.conf.task_annotations = {CLASS}, or {{'package.module.function': {{...: ...}}}}",
            }


def unusable_routes(app: "Celery") -> Iterator[Refusal]:
    """Refuse routes with which no task can be sent: each ``delay`` would raise."""
    from celery.app.routes import expand_router_string

    def take(route: Any) -> None:
        router = expand_router_string(route) if isinstance(route, str) else route
        if isinstance(router, type) or not (callable(router) or hasattr(router, "route_for_task")):
            what = f"the class {router.__name__}" if isinstance(router, type) else f"a {type(router).__name__}"
            raise TypeError(f"it is {what}, not a function (name, args, kwargs, options, task=None, **kw)")

    routes = app.conf.task_routes or ()
    for route in routes if isinstance(routes, (list, tuple)) else [routes]:
        if isinstance(route, (Mapping, list, tuple)):
            yield from unusable_map(route)
        elif why := why_not(take, route):
            yield {
                "problem": f"task_routes has {route}, which can't be loaded ({why})",
                "write": or_path(
                    route,
                    "app.conf.task_routes = {'package.module.*': {'queue': 'name'}}, or "
                    "'package.module.function' of a router",
                ),
            }


def unusable_map(routes: Any) -> Iterator[Refusal]:
    """Refuse what is no pair of a task and its route, or no route."""
    try:
        pairs = dict(routes).items()
    except (TypeError, ValueError):
        yield {
            "problem": f"task_routes has {routes!r}, which is no list of pairs",
            "write": "app.conf.task_routes = {'package.module.*': {'queue': 'name'}}",
        }
        return
    for task, route in pairs:
        if not isinstance(route, (str, Mapping)) and why_not(dict, route):
            name = getattr(route, "name", "name")
            yield {
                "problem": f"task_routes[{getattr(task, 'pattern', task)!r}] is a {type(route).__name__}, and has to "
                "be the name of a queue or a dict",
                "write": f"{{'queue': {name!r}}}",
            }


def doubtful_formats(app: "Celery") -> Iterator[Refusal]:
    """Name formats by which no line can be written, such as one with a field that lines don't have."""
    from celery import signals

    for setting, task, signal in (
        ("worker_log_format", False, signals.after_setup_logger),
        ("worker_task_log_format", True, signals.after_setup_task_logger),
    ):
        # Who changes the logger may add the field.
        if has_own_logging() or signal.receivers or why_not(format_for(task), text := app.conf.get(setting)):
            continue
        record = logging.getLogger("celery").makeRecord("celery", logging.INFO, __file__, 1, "text", (), None)
        if why := why_not(formatter_of(text, task).format, record):
            yield {
                "problem": f"logging can't write a line with {setting}, {text} ({why}), and shows a traceback for each",
                "write": f"app.conf.{setting} with fields that each line has, or a logging.setLogRecordFactory",
            }
