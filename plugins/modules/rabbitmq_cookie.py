#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Give the running nodes of a RabbitMQ cluster another Erlang cookie, without a restart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_cookie
short_description: Give the running nodes of a RabbitMQ cluster another Erlang cookie
description:
  - Nodes ask for the cookie when they connect; connections that are there stay. V(beside) puts the new cookie into a
    file beside the old one, on each host; V(switched), on one host, has all nodes take it from there in one step.
  - Refuses while a node of the cluster does not run, which would come back with the old one.
  - The cookie is on no command line and in no output.
options:
  state: {description: Which of the two steps., type: str, choices: [beside, switched], required: true}
  cookie: {description: The new cookie., type: str, required: true}
  nodes: {description: Erlang's names of the cluster's nodes., type: list, elements: str, required: true}
attributes:
  check_mode: {support: full, description: Says whether it would change the cookie.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_cookie:
    state: beside
    cookie: "{{ vault_erlang_cookie }}"
    nodes: [rabbit@broker1, rabbit@broker2, rabbit@broker3]
- rabbitmq_cookie:
    state: switched
    cookie: "{{ vault_erlang_cookie }}"
    nodes: [rabbit@broker1, rabbit@broker2, rabbit@broker3]
  run_once: true
"""
RETURN = ""

import os
from typing import NoReturn

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import ERLANG_COOKIE
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_cluster as cluster
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

BESIDE = ERLANG_COOKIE.with_name(f"{ERLANG_COOKIE.name}.new")
# The nodes without a file beside their own have been switched by a run that ended there.
SWITCH = f"""
New = "{BESIDE}", Nodes = [node() | nodes()],
Found = [{{N, rpc:call(N, file, read_file, [New])}} || N <- Nodes],
case lists:usort([Text || {{_, {{ok, Text}}}} <- Found]) of
  [] -> none;
  [One] ->
    Cookie = list_to_atom(string:trim(binary_to_list(One))),
    [true = rpc:call(N, erlang, set_cookie, [N, Cookie]) || N <- Nodes],
    [ok = rpc:call(N, file, rename, [New, "{ERLANG_COOKIE}"]) || {{N, {{ok, _}}}} <- Found],
    switched
end.
"""


def put_beside(cookie: str) -> None:
    """Write the new cookie beside the old one. The nodes restart for a cookie that is newer than they are: not this."""
    before = ERLANG_COOKIE.stat()
    write_atomically(BESIDE, cookie, 0o400, "rabbitmq", "rabbitmq")
    os.utime(BESIDE, (before.st_atime, before.st_mtime))


def switch(nodes: list[str], cookie: str) -> bool:
    """Switch all nodes to the new one; say whether that was still to be done. Raises OperatorError."""
    if faults := cluster.state().faults(nodes):
        raise OperatorError(f"The cookie was not changed: {'; '.join(faults)}. End that first, and run this again.")
    said = cluster.ctl("eval", SWITCH)
    if cluster.cookie_is(cookie) != "same":
        raise OperatorError(f"The cookie was not changed: the nodes say {said.strip()[-300:]}.")
    # With the new cookie, from here.
    if faults := cluster.state().faults(nodes):
        raise OperatorError(f"The cookie is changed, and now: {'; '.join(faults)}.")
    return said.strip() == "switched"


def work(module: AnsibleModule) -> NoReturn:
    """Do one of the steps. Raises OperatorError."""
    cookie = module.params["cookie"]
    changed = cluster.cookie_is(cookie) == "other"
    if not module.check_mode:
        if module.params["state"] == "switched":
            changed = switch(module.params["nodes"], cookie)
        elif changed:
            put_beside(cookie)
    module.exit_json(changed=changed)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["beside", "switched"], "required": True},
            "cookie": {"type": "str", "required": True, "no_log": True},
            "nodes": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    with reported(module):
        work(module)


if __name__ == "__main__":
    main()
