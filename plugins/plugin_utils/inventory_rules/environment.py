"""Rules for the application's environment: names, values as they were written, and what is not the application's."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import (
    ARGUMENT,
    Host,
    Mistake,
    bytes_of,
    shown,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.programs import TAKEN, TAKEN_BY_WORKER

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # an Ansible that does not say where a value stands
    Origin = None

MOST_OF_ALL = (2 << 20) - ARGUMENT
"""Bytes of all variables: a quarter of the usual limit of the stack, 8 MiB, less what a command line may need."""
OF_POINTER = 8
"""Bytes that each variable takes beside its text."""

BROKER = "celery_app_broker_url, or the group rabbitmq"
RESULTS = "celery_app_result_backend"

SET_BY_KIT = {
    "CELERY_BROKER_URL": BROKER,
    "CELERY_RESULT_BACKEND": RESULTS,
    "CELERY_OPS_TASK_TIME_LIMIT": "celery_app_task_time_limit",
    "CELERY_OPS_START_TIMEOUT": "celery_worker_ready_timeout",
    "CELERY_OPS_DEFAULT_QUEUE": "celery_app_name",
    "CELERY_OPS_HOST": "the host's name in the inventory",
    **dict.fromkeys(("LISTEN_FDS", "LISTEN_PID", "CELERY_OPS_APP", "CELERY_OPS_PROGRAM"), "the program it starts"),
}

# What Celery and billiard read, under names that look like an application's own.
_INSTEAD = {
    **dict.fromkeys(
        ("BROKER_URL", "CELERY_BROKER", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
        ("Celery reads it in some of the programs and not in others, which would then use two brokers", BROKER),
    ),
    "RESULT_BACKEND": ("Celery's command line reads it, and the web program does not", RESULTS),
    "APP": ("Celery's command line reads it in place of -A", "celery_app_module"),
    **dict.fromkeys(
        ("LOADER", "CONFIG_MODULE", "CELERY_CONFIG"),
        ("Celery's command line reads it, and would configure the workers unlike the web program", "your settings"),
    ),
    "CELERY_WORKDIR": ("Celery's command line would leave the release's directory", "celery_app_source"),
    "REMAP_SIGTERM": ("with it, a worker drops its tasks instead of finishing them before it ends", ""),
    "FORKED_BY_MULTIPROCESSING": ("with it, a pool process takes itself for one of another system", ""),
}  # fmt: skip

# Options that the kit's command lines don't have, and that `celery worker` and `celery beat` take from the environment.
_PROCESS = ("detach", "logfile", "uid", "gid")
_OPTIONS = {
    "CELERY_WORKER_": (TAKEN_BY_WORKER, ("beat", "purge", "exclude-queues", "autoscale", *_PROCESS)),
    "CELERY_BEAT_": (TAKEN, _PROCESS),
}  # fmt: skip
REFUSED = _INSTEAD | {
    start + option.replace("-", "_").upper(): (f"Celery's command line takes it for --{option}: {why}", "")
    for start, (taken, options) in _OPTIONS.items()
    for option in options
    for names, why in taken.items()
    if f"--{option}" in names
}


def environment(host: Host) -> Iterator[Mistake]:
    """Names a shell takes, values of one line, nothing twice, and nothing that is not the application's to set."""
    yield from variables("celery_app_environment", host["celery_app_environment"] or {})
    yield from too_much("celery_app_environment", host["celery_app_environment"] or {}, {})
    hidden = host.given.get("celery_app_secrets")
    for key in hidden if isinstance(hidden, Mapping) else ():
        if key in (host["celery_app_environment"] or {}):
            text = f"celery_app_environment and celery_app_secrets both set {key}. Leave it in celery_app_secrets only."
            yield Mistake("celery_app_environment", text)


def size_of(name: Any, value: Any) -> int:
    """Return the bytes that an environment variable takes in the call that starts a program."""
    return bytes_of(f"{name}={value}")


def too_much(variable: str, values: Mapping[Any, Any], beside: Mapping[Any, Any]) -> Iterator[Mistake]:
    """Refuse variables that are too much together for Linux to start a program; `beside` has a mistake of its own."""
    own = {name: size_of(name, value) + OF_POINTER for name, value in values.items()}
    others = sum(size_of(name, value) + OF_POINTER for name, value in beside.items())
    total = sum(own.values()) + others
    if total > MOST_OF_ALL >= others and max(own.values()) <= ARGUMENT:
        together = f", {total} with celery_app_environment" if beside else ""
        text = (
            f"{variable} has {total - others} bytes{together}; Linux starts no program with more than {MOST_OF_ALL} in "
            f"its environment. Put the longest values into files. Write: {max(own, key=own.__getitem__)}: "
            "/path/of/the/file"
        )
        yield Mistake(variable, text)


def variables(variable: str, values: Mapping[Any, Any], hide: bool = False, of_app: bool = True) -> Iterator[Mistake]:
    """What is wrong with environment variables; those of the application may not be the kit's or Celery's."""
    for key, value in values.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(key)):
            fix = re.sub(r"\W", "_", str(key)).lstrip("0123456789") or "NAME"
            text = f"{variable} has {shown(key)}: no name for an environment variable. Write: {fix}: ..."
        elif of_app and key in SET_BY_KIT:
            text = f"{variable} has {key}: the kit makes it from {SET_BY_KIT[key]}. Leave {key} out."
        elif of_app and key in REFUSED:
            why, instead = REFUSED[key]
            fix = f"Write it in {instead}, and leave {key} out." if instead else f"Leave {key} out."
            text = f"{variable} has {key}: {why}. {fix}"
        elif isinstance(value, (list, Mapping)):
            text = f"{variable} has {key}, which is {'hidden' if hide else shown(value)}: it has to be text. "
            text += f"Write: {key}: ''"
        elif re.search(r"[\n\r\0]", str(value)):
            text = (
                f"{variable} has {key}, whose value holds a newline; an environment file has one line a variable. "
                f'Write it encoded: {key}: "{{{{ ... | b64encode }}}}"'
            )
        elif (size := size_of(key, value)) > ARGUMENT:
            text = (
                f"{variable} has {key}, of {size} bytes with its name; Linux starts no program with a variable of more "
                f"than {ARGUMENT}. Put its value into a file. Write: {key}: /path/of/the/file"
            )
        elif changed := _changed(key, value, hide):
            text = f"{variable} has {key}, {changed}"
        else:
            continue
        yield Mistake(variable, text)


def _changed(key: Any, value: Any, hide: bool) -> str:
    """What YAML or a template has made of a value that is not text, and what to write; "" where it is as written."""
    if isinstance(value, str) or not isinstance(value, (bool, int, float, datetime.date, type(None))):
        return ""
    written = as_written(key)
    if written == str(value) or (written is None and isinstance(value, int) and not isinstance(value, bool)):
        return ""
    if value is None:
        return f"which has no value: it has to be text. Write: {key}: ''"
    if hide:
        return f'which is not text, and would arrive changed. Write its value in quotes: {key}: "..."'
    if written is None:  # a template, a JSON file, -e
        written = str(value).lower() if isinstance(value, bool) else str(value)
    return f'which is {written} and would arrive as "{value}". Write: {key}: "{written}"'


def as_written(key: Any) -> str | None:
    """The plain scalar that stands behind a key of an inventory's YAML file; None where that can't be told."""
    origin = Origin.get_tag(key) if Origin else None
    if origin is None or not origin.path or not origin.line_num or not origin.col_num:
        return None
    try:
        line = Path(origin.path).read_text().splitlines()[origin.line_num - 1][origin.col_num - 1 :]
        # As a flow mapping it reads alike, whether it stands in one or in a block.
        tokens = [token for token, _ in zip(yaml.scan("{" + line + "\n}"), range(6), strict=False)]
    except (OSError, IndexError, ValueError, yaml.YAMLError):
        return None
    # stream start, {, key, the key's name, value, the value's text
    value = tokens[5] if len(tokens) == 6 else None
    return value.value if isinstance(value, yaml.ScalarToken) and value.plain else None
