#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the control node."""

DOCUMENTATION = r"""
module: deploy_outcome
short_description: Fail a deploy with what its phases saw
description:
  - Fails on the hosts whose phases failed, with each reason and with what runs now; on all hosts where a connection
    was lost before any phase. Does nothing where no phase failed.
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.deploy_outcome:
"""
RETURN = ""
