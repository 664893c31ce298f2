#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: wait until no program of an application runs with another environment than the current one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_users
short_description: Wait until no program runs with an old environment
description:
  - A generation that is at its last tasks still uses the environment, and with it the passwords, that it was started
    with. This waits until all of them have ended.
options:
  app:
    description: The application's name.
    type: str
    required: true
  timeout:
    description: Seconds to wait.
    type: int
    required: true
attributes:
  check_mode:
    support: full
    description: Waits for nothing.
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- environment_users:
    app: shop
    timeout: 360
"""
RETURN = r"""
waited: {description: Seconds., type: float, returned: success}
"""

import re
import time

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_if_there
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, Layout
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

ENVIRONMENT = re.compile(r"--env-file (\S+)")


def of_before(app: str) -> list[str]:
    """Return the programs of the application whose environment file is not the current one."""
    current, found = Layout(app).environment_link.resolve(), []
    for path in sorted(CONF_D.glob(f"{app}-*.conf")):
        # One that is a link to nowhere was forgotten by a reboot; one that goes meanwhile has ended.
        if (named := ENVIRONMENT.search(text_if_there(path))) and Layout(app).etc.joinpath(
            named[1]
        ).resolve() != current:
            found.append(path.stem)
    return found


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(
        argument_spec={"app": {"type": "str", "required": True}, "timeout": {"type": "int", "required": True}},
        supports_check_mode=True,
    )
    begun, app, timeout = time.monotonic(), module.params["app"], module.params["timeout"]
    while (left := of_before(app)) and not module.check_mode:
        if time.monotonic() - begun > timeout:
            module.fail_json(
                msg=f"Still finishing their last tasks after {timeout} s, with the old environment: {', '.join(left)}. "
                "Look: supervisorctl status. Then complete the rotation: ansible-playbook playbooks/rotate_secrets.yml"
            )
        time.sleep(0.5)
    module.exit_json(changed=False, waited=round(time.monotonic() - begun, 1))


if __name__ == "__main__":
    main()
