#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Remove what Redis has added to its configuration and contradicts the kit's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_conf
short_description: Remove what Redis has added to its configuration and contradicts the kit's
description:
  - When Sentinel makes a Redis a primary or a replica, Redis writes its settings behind the include of the kit's file,
    where they would beat a change of it. Those that say the same stay, as does what the kit's file says nothing of.
options:
  path: {description: Redis' own configuration., type: path, default: /etc/redis/redis.conf}
  ours: {description: "The kit's files that it includes.", type: list, elements: path, required: true}
attributes:
  check_mode: {support: full, description: Says whether the file would change.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- redis_conf:
    ours: [/etc/redis/celery-ops.conf]
"""

from pathlib import Path

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of, write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import REDIS_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.services.redis import without_contradictions
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": str(REDIS_CONF)},
            "ours": {"type": "list", "elements": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    files = [Path(each) for each in module.params["ours"]]
    text = text_of(path) if path.exists() else ""
    fresh = without_contradictions(text, "\n".join(each.read_text() for each in files if each.exists()))
    if fresh != text and not module.check_mode:
        with reported(module):
            write_atomically(path, fresh, 0o640, "redis", "redis")
    module.exit_json(changed=fresh != text)


if __name__ == "__main__":
    main()
