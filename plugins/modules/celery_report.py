#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: how much of their concurrency and memory the programs of this host used."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_report
short_description: Summarize the use of an application's programs
description:
  - Reads the watchdog's samples and the workers' heartbeats. Changes nothing.
options:
  app: {description: The application's name., type: str, required: true}
  over:
    description: Which samples are read, those of the last V(day) or of the last V(hour).
    type: str
    default: day
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_report:
    app: shop
"""
RETURN = r"""
usage:
  description: Number of samples, and what they tell of V(queues) and V(programs), with an advice where one is due.
  returned: success
  type: dict
"""

import re
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import HEARTBEAT, Layout, program_of
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over
from ansible_collections.celery_ops.kit.plugins.module_utils.usage import usage

ARGUMENTS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "over": {"type": "str", "default": "day"},
}


def span(samples: dict[str, Any]) -> float:
    """Return how many seconds the samples are about."""
    return float(samples.get("every") or 0) * len(samples.get("times") or ())


def workers(run: Path, app: str) -> dict[str, Any]:
    """Return slots and queues of each worker program, as its newest heartbeat tells."""
    beats = [(path, read_json(path)) for path in run.glob(f"{app}-*{HEARTBEAT}")]
    beats = [(path, beat) for path, beat in beats if beat.get("kind") == "worker"]
    return {program_of(path.name.removesuffix(HEARTBEAT)): beat for path, beat in sorted(beats, key=age)}


def age(one: tuple[Path, dict[str, Any]]) -> float:
    """Return when a heartbeat was written."""
    return float(one[1].get("time") or 0)


def free_memory(meminfo: Path = Path("/proc/meminfo")) -> float:
    """Return the bytes that programs can still have."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    return int(found[1]) * 1024.0 if found else 0.0


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if module.params["over"] not in ("day", "hour"):
        module.fail_json(msg=f"celery_app_report_over: {module.params['over']!r} is neither day nor hour")
    layout = Layout(module.params["app"])
    hour, day = read_json(layout.hour), read_json(layout.day)
    # On the first day, the hour knows more.
    seen = day if module.params["over"] == "day" and span(day) > span(hour) else hour
    module.exit_json(changed=False, usage=usage(seen, workers(layout.run, layout.app), free_memory()))


if __name__ == "__main__":
    main()
