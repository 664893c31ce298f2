#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: rollback_target
short_description: Choose the deployment that a rollback goes back to
description:
  - Reads the histories of all hosts of the play, and chooses one deployment for all. Run it once.
options:
  release:
    description: The release to go back to; empty for the deployment before the current one.
    type: str
    default: ""
  cache:
    description: The control node's directory of packed sources.
    type: path
    required: true
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.rollback_target:
    cache: ~/.cache/celery-ops
  run_once: true
"""
RETURN = r"""
id: {description: The id of the deployment that the rollback makes., type: str, returned: success}
deployment: {description: The deployment to restore., type: str, returned: success}
release: {description: The release., type: str, returned: success}
without_record:
  description: Hosts that never had this deployment.
  type: list
  elements: str
  returned: success
without_release: {description: Those of them that have to build it., type: list, elements: str, returned: success}
archive: {description: The packed source on the control node., type: str, returned: success}
is_packed: {description: Whether it is there., type: bool, returned: success}
"""
