#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: the last lines that the programs of an application wrote on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_logs
short_description: Read the last lines of an application's logs
description:
  - Returns the last entries of all programs of the application on this host, merged by time. A traceback is part of the
    entry before it.
  - Needs no release, so it reads the logs of an application that can't start, too.
options:
  app: {description: The application's name., type: str, required: true}
  lines: {description: The last this many entries; a number., type: str, default: "100"}
  program:
    description: Only this program, such as V(worker-default), a pattern of such names, or one generation's whole name.
    type: str
    default: ""
  task: {description: Only entries that hold this task id., type: str, default: ""}
  release: {description: Only the programs of this release., type: str, default: ""}
  since:
    description: "Only what was written in this time: V(30min), V(2h), V(1d). Empty for all."
    type: str
    default: ""
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_logs:
    app: shop
    program: worker-*
"""
RETURN = r"""
entries:
  description: "The entries, the oldest first, each with V(time) (Unix time), V(program) and V(text)."
  returned: success
  type: list
  elements: dict
wrong:
  description: Why a program or release is unknown here; it may be known on another host.
  returned: success
  type: str
"""

import re
import time
from dataclasses import asdict
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.log_lines import (
    Logs,
    Wanted,
    conf_files,
    mistake,
    releases_of,
    seconds,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def read(options: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that are asked for. Raises ValueError for a number or a time that is none."""
    app = options["app"]
    if not re.fullmatch(r"[1-9]\d{0,5}", options["lines"]):
        raise ValueError(f"lines: {options['lines']!r} is not a number of entries. Write 1 or more, such as 100")
    since = time.time() - seconds_of(options["since"]) if options["since"] else 0.0
    records = Deployments(app).all().values()
    recorded = [(one["name"], one["conf"]) for record in records for one in record.get("programs", [])]
    logs = Logs(app, Layout(app).log, releases_of([*recorded, *conf_files(CONF_D, app)]))
    if wrong := mistake(options, logs):
        return {"entries": [], "wrong": wrong}
    wanted = Wanted(options["program"], options["task"], options["release"], since)
    return {"entries": [asdict(entry) for entry in logs.last(int(options["lines"]), wanted)], "wrong": ""}


def seconds_of(text: str) -> float:
    """Return the seconds in a time. Raises ValueError."""
    try:
        return seconds(text)
    except ValueError as error:
        raise ValueError(f"since: {error}") from None


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "lines": {"type": "str", "default": "100"},
            "program": {"type": "str", "default": ""},
            "task": {"type": "str", "default": ""},
            "release": {"type": "str", "default": ""},
            "since": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **read(module.params))
    except ValueError as error:
        module.fail_json(msg=f"celery_app_logs_{error}")


if __name__ == "__main__":
    main()
