#!/usr/bin/python
"""Add a line to the audit log of an application."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_entry
short_description: Add a line to the audit log of an application
description:
  - The log is C(/var/log/<app>/deploys.log), a JSON line for each deploy, rollback and verb that changes something.
  - A log that can't be written, as on a full disk, is a warning.
options:
  app: {description: The application., type: str, required: true}
  action: {description: "The verb, such as V(pause).", type: str, required: true}
  what: {description: What it was about; no secret., type: list, elements: str, default: []}
  outcome: {description: How it ended., type: str, default: good}
  who: {description: Who did it; set by the action plugin., type: str, default: ""}
attributes:
  check_mode: {support: full, description: Nothing is written.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- celery_ops.kit.audit_entry:
    app: shop
    action: pause
    what: [queue photos]
"""
RETURN = ""

from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.deployments import Deployments
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

ARGUMENTS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "action": {"type": "str", "required": True},
    "what": {"type": "list", "elements": "str", "default": []},
    "outcome": {"type": "str", "default": "good"},
    "who": {"type": "str", "default": ""},
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    if not module.check_mode:
        log = Deployments(options["app"])
        entry = {key: options[key] for key in ("who", "action", "outcome")}
        try:
            log.append({**entry, "changed": options["what"]})
        except OSError as error:
            module.warn(f"{log.audit} has no line for this {options['action']}: {error.strerror}.")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
