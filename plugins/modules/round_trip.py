#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: round_trip
short_description: Send a task to the workers and get it back
description:
  - Waits for a tick of the scheduler too, where there is one. Changes nothing; in check mode nothing is run.
  - Reads the application from the variables of the role celery.
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.round_trip:
  register: check
"""
RETURN = r"""
found: {description: "What the check found, as celery-ops-check prints it.", type: dict, returned: always}
"""
