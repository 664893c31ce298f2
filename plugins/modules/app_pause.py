#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: app_pause
short_description: Pause or resume queues, programs or all of an application
description:
  - Changes C(/var/lib/<app>/pause.json), which workers and scheduler obey within seconds, and waits until they do.
  - Reads what to pause from the variables C(celery_app_pause_*) of the role celery.
options:
  state:
    description:
      - V(look) reads what is paused and what runs; V(paused) and V(resumed) change it; V(outcome) says what is, in one
        line. V(idle) waits until no task runs, and V(all_idle) fails where one still does on any host.
    type: str
    choices: [look, paused, resumed, outcome, idle, all_idle]
    required: true
  by:
    description: Another verb than pause, which closes schedule and web, too - V(maintenance), V(deploy).
    type: str
  verb: {description: "The verb of the outcome: V(pause), V(resume).", type: str}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.app_pause:
    state: look
  register: __celery_app_pause_look
"""
RETURN = r"""
entries: {description: What is paused on the host., type: list, elements: dict, returned: success}
workers: {description: "Its workers, their queues and tasks.", type: list, elements: dict, returned: success}
late: {description: Workers that have not applied the change yet., type: list, elements: str, returned: success}
"""
