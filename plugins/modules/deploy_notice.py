#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

DOCUMENTATION = r"""
module: deploy_notice
short_description: Send a notice of a deploy or rollback
description:
  - Sends the targets in C(celery_app_notify) a notice, from the control node. A target that does not take it within its
    time is named in a warning; the run never fails for it. In check mode nothing is sent.
  - That a run has died is sent by the keeper of its lock (M(celery_ops.kit.deploy_lock)).
options:
  event:
    description: What happened. V(ended) is V(finished), or V(failed) where a phase of the deploy has.
    type: str
    choices: [started, ended, finished, failed, rolled_back]
    required: true
  detail: {description: A line about it., type: str}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.deploy_notice:
    event: started
"""
RETURN = r"""
problems: {description: "A line for each target that got no notice.", type: list, elements: str, returned: always}
sent: {description: How many got it., type: int, returned: always}
"""
