#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Make one status of what celery_status read on each host. The work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: celery_status_report
short_description: Show the status of all hosts of the run, or write it as JSON or as a page
description:
  - Runs on the control node alone. It takes what M(celery_ops.kit.celery_status) returned of every host of the play,
    registered as C(__celery_app_status), and the variables C(celery_app_status_format), C(celery_app_status_output),
    C(celery_app_status_exit) and C(celery_app_status_drift), or the same without C(celery_app_).
  - With C(celery_app_status_drift) it runs site.yml in check mode, with the options of this run.
options: {}
attributes:
  check_mode:
    support: full
    description: Changes nothing but the file that was asked for, also with C(--check).
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- name: Show the status
  celery_ops.kit.celery_status_report:
  run_once: true
"""
RETURN = r"""
text: {description: "The status for people, or where it was written.", type: str, returned: always}
document: {description: "The status, as docs/status.md describes it.", type: dict, returned: always}
fails: {description: Whether something is wrong and the run is to fail for it., type: bool, returned: always}
outcome: {description: How many problems there are., type: str, returned: always}
"""
