"""Read files of Supervisor's configuration as Supervisor does."""

from __future__ import annotations

import configparser
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of


def parsed(text: str, source: str = "<string>", *, allow_no_value: bool = False) -> configparser.RawConfigParser:
    """Return what is in the text of a file, which errors call `source`. Raises configparser.Error."""
    parser = configparser.RawConfigParser(
        strict=False, inline_comment_prefixes=(";", "#"), allow_no_value=allow_no_value
    )
    parser.read_string(text, source)
    return parser


def parsed_file(conf: Path) -> configparser.RawConfigParser:
    """Return what is in a file. Raises OSError, configparser.Error."""
    return parsed(text_of(conf), str(conf))


def expansions(conf: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what Supervisor writes in the place of ``%(here)s`` and the like; of two ``%`` it makes one."""
    known = {f"ENV_{key}": value for key, value in environment.items()}
    return {"here": str(conf.parent.absolute()), "host_node_name": platform.node(), **known}


def option_in(parser: configparser.RawConfigParser, conf: Path, section: str, name: str) -> str | None:
    """Return an option of the file `conf` as Supervisor expands it; None where there is none."""
    value = parser.get(section, name, fallback=None)
    # With an environment that is not supervisord's: what it lacks stays as it is written.
    with suppress(KeyError, ValueError, TypeError):
        return value and value % expansions(conf, os.environ)
    return value
