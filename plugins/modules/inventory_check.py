#!/usr/bin/python
"""Read the inventory and refuse what can't work. The work is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_check
short_description: Refuse an inventory that can't work, with all of its mistakes at once
description:
  - Runs on the control node alone and changes nothing. Looks at the hosts of the play, and at the inventory around
    them; each mistake names the variable, its value, what is wrong and the line to write.
  - The rules are in C(plugins/plugin_utils/inventory_rules/); types come from the roles' argument specs.
options:
  only:
    description: Look at mistakes of these variables only; empty for all.
    type: list
    elements: str
    default: []
  authority:
    description: Whether the playbook makes the CA of broker and result store, where the control node has none.
    type: bool
    default: false
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- inventory_check:
  run_once: true
"""
RETURN = r"""
wanted: {description: "What host_check is to look for, by host.", type: dict, returned: success}
generated: {description: "The secrets that this run generates, by host.", type: dict, returned: success}
elsewhere: {description: "The same for hosts outside the run, where it generates any.", type: dict, returned: success}
"""
