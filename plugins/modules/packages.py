#!/usr/bin/python
"""Install Debian packages and record which ones are new, so that they can be removed again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages and record which ones are new
description:
  - Installs what is missing in one call of apt. Every package that this call installed, dependencies included, is
    recorded on the host; O(state=absent) purges those alone.
  - Waits up to five minutes for apt's and dpkg's locks, which apt-daily and unattended-upgrades hold on a new machine.
options:
  names:
    description: The packages to install.
    type: list
    elements: str
    default: []
  source:
    description:
      - A package source of somebody else's, which apt then knows, with C(uris), C(suite), C(components), the armored
        C(key) and C(pins), the version of each package. Nothing else is taken from it. Empty for the host's own
        sources; what was written before then stays.
      - Installed packages are never upgraded.
    type: dict
    default: {}
  source_name:
    description: What the files of O(source) in C(/etc/apt) are called.
    type: str
    default: celery-ops
  state:
    description: V(present) installs O(names); V(absent) purges everything that is recorded.
    choices: [present, absent]
    default: present
    type: str
attributes:
  check_mode: {support: full, description: "Needs no python3-apt, so it works on a host that has nothing yet."}
  diff_mode: {support: full, description: Shows the packages that come or go.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- packages:
    names: [redis-server]
"""
RETURN = r"""
packages:
  description: What was installed (or purged); in check mode, what would be.
  type: list
  elements: str
  returned: always
unlike:
  description: "Installed packages whose version is not the one of O(source): by name, what is installed."
  type: dict
  returned: state=present
kept:
  description: Recorded packages left in place because something else needs them.
  type: list
  elements: str
  returned: state=absent
"""

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.services import packages
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "dict", "default": {}},
            "source_name": {"type": "str", "default": "celery-ops"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    want = module.params
    with reported(module):
        if want["state"] == "present":
            result = packages.install(want["names"], want["source"], want["source_name"], module.check_mode)
        else:
            result = packages.purge(module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
