#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: app_restart
short_description: Check what a restart is asked for, and say what it did
description:
  - Reads what the restart's phases have registered on the hosts of the run.
options:
  state:
    description: V(check) refuses names of programs that there are not; V(outcome) says what was restarted, in one line.
    type: str
    choices: [check, outcome]
    default: outcome
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.app_restart:
    state: check
"""
RETURN = ""
