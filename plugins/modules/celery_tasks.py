#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: the tasks that the workers of this host have, as their own files tell."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_tasks
short_description: Read which tasks the workers of this host have
description:
  - Returns what each worker of the application runs, holds and has scheduled. Asks neither the broker nor the worker,
    so it works while the broker is down or a worker's main loop is busy.
options:
  app: {description: The application's name., type: str, required: true}
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_tasks:
    app: shop
"""
RETURN = r"""
workers:
  description: >-
    A dictionary for each worker, with V(program), V(release), V(time) (when it wrote this, as Unix time), and the lists
    V(running), V(waiting) and V(scheduled) of tasks with V(id), V(name), V(root), V(since) or V(eta). No arguments.
  returned: success
  type: list
  elements: dict
time:
  description: The host's Unix time.
  returned: success
  type: float
"""

import time

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import REQUESTS, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over
from ansible_collections.celery_ops.kit.plugins.module_utils.task_lists import read


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec={"app": {"type": "str", "required": True}}, supports_check_mode=True)
    app = module.params["app"]
    module.exit_json(changed=False, workers=read(app, Layout(app).run, REQUESTS, proc.start_of), time=time.time())


if __name__ == "__main__":
    main()
