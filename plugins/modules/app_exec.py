#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: app_exec
short_description: Run a command of the operator's in the release that is live, as the application
description:
  - Runs C(celery_app_exec) with the application's user, environment and virtualenv, on one host of the run or on all.
  - Its exit status is returned and is no failure of the task; O(state=outcome) fails where one is not 0.
  - Reads the application from the variables of the role celery. In check mode nothing is run.
options:
  state: {description: V(outcome) says how it ended on all hosts., type: str, choices: [run, outcome], default: run}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.app_exec:
  register: __celery_app_exec
"""
RETURN = r"""
rc: {description: The exit status., type: int, returned: when it ran}
text: {description: "The host, the status and all that it printed.", type: str, returned: when it ran}
what: {description: What the audit log says of the command., type: list, elements: str, returned: when it ran}
"""
