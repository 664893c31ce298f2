"""A host's shell as root: what works before Python is there, and where a refused login as root shows first."""

from __future__ import annotations

import re
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError

REFUSED = re.compile("assword|privilege escalation|[Aa]uthentication")
"""What Ansible, sudo and su say where a password is missing or wrong; su without one waits until Ansible gives up."""
SITE = "ansible-playbook playbooks/site.yml"


def as_root(action: ActionBase, command: str) -> dict[str, Any]:
    """Return what a command does that ends with 0. Raises OperatorError where the shell does not come to it as root."""
    become = action._connection.become
    try:
        done = action._low_level_execute_command(command.strip())  # Ansible goes on behind it, with &&
    except AnsibleError as error:
        if not become or not REFUSED.search(str(error)):
            raise
        said = str(error)
    else:
        if not done["rc"]:
            return done
        said = f"{done['stdout']} {done['stderr']}"
    said = " ".join(said.split()).rstrip(".: ")
    raise OperatorError(f"Can't become root on this host: {said}. {fix_of(become.name if become else '', said)}")


def fix_of(method: str, said: str) -> str:
    """Return what to do where sudo or su refuses."""
    if REFUSED.search(said):
        whose = "root's password" if method == "su" else "the password that sudo asks for"
        return f"Write {whose} into ansible_become_password, or type: {SITE} --ask-become-pass"
    if re.search("sudo:.* not found", said):
        return (
            "Type there, as root: apt-get install sudo, and let the user use it. Or write ansible_become_method: su, "
            "and root's password into ansible_become_password"
        )
    return 'See "Access to the hosts" in docs/operations.md'
