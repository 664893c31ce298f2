#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: app_command
short_description: Run a command on the host as the application
description:
  - Runs a command with the application's user, environment and virtualenv, in the deployment that is live.
  - Reads the application from the variables of the role celery. In check mode nothing is run.
options:
  command: {description: "The command line, split as a shell does; no shell runs it.", type: str}
  argv: {description: The command's words; instead of O(command)., type: list, elements: str}
  variable: {description: "The variable that holds O(command), a check; named where it fails.", type: str}
  stdin: {description: What the command reads., type: str}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.app_command:
    command: celery inspect ping
"""
RETURN = r"""
rc: {description: The exit status., type: int, returned: always}
stdout: {description: What it printed., type: str, returned: always}
"""
