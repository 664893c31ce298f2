#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: app_scale
short_description: Say which line of the inventory scales a program
description:
  - Reads C(celery_app_scale), and what the workers run now. Fails with the line to write and the command to type;
    changes nothing. Succeeds where the inventory and all workers have that number.
  - With C(celery_app_scale_until) it says what to type for numbers that end by themselves at that time, and fails, too.
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.app_scale:
"""
RETURN = ""
