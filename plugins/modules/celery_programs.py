#!/usr/bin/python
"""Documentation of the action plugin of the same name, which ends in the module supervisor_programs."""

DOCUMENTATION = r"""
module: celery_programs
short_description: Build an application's programs from its variables, and hand over to them
description:
  - Reads the variables of the role celery, builds command lines, readiness commands and time limits on the control
    node, renders each program's file for Supervisor, and calls M(celery_ops.kit.supervisor_programs) on the host.
options:
  phase:
    description:
      - The groups whose programs are handed over. V(producers) is web and scheduler, V(all) is those and the workers.
      - V(left) is the groups that the host is not in. Their programs finish their tasks and are removed; a rollback
        brings them back where the deployment before had them.
    choices: [workers, scheduler, web, left, producers, all]
    type: str
    required: true
  state:
    description:
      - V(deployed) starts what this run deploys or goes back to.
      - V(restored) goes back to the deployment before; without one, the programs are removed.
      - V(absent) removes the programs, whatever groups the host is in.
      - V(restarted) hands those that C(celery_app_restart) names over to another generation of what is live.
    choices: [deployed, restored, absent, restarted]
    type: str
    default: deployed
  successors_only:
    description: Leave out the programs of which nothing runs on the host as yet, for a later call.
    type: bool
    default: false
  leavers_only:
    description: Stop and remove the scheduler of a host that is to have none, and do nothing else.
    type: bool
    default: false
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.celery_programs:
    phase: workers
"""
RETURN = r"""
phase: {description: The phase that was handed over., type: str, returned: success}
"""
