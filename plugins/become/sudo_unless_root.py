"""Become root by sudo; somebody who is root already needs none, and minimal Debian images have none."""

from __future__ import annotations

# The options of Ansible's own sudo, under the same names: a plugin can't take over another one's.
DOCUMENTATION = """
name: sudo_unless_root
short_description: sudo, where the login user is not root already
description:
  - Decided on the host, as nothing else knows who logs in (the SSH client's configuration may name the user).
options:
  become_user:
    description: The user to become.
    default: root
    ini:
      - {section: privilege_escalation, key: become_user}
      - {section: sudo_become_plugin, key: user}
    vars: [{name: ansible_become_user}, {name: ansible_sudo_user}]
    env: [{name: ANSIBLE_BECOME_USER}, {name: ANSIBLE_SUDO_USER}]
    keyword: [{name: become_user}]
  become_exe:
    description: The program sudo.
    default: sudo
    ini:
      - {section: privilege_escalation, key: become_exe}
      - {section: sudo_become_plugin, key: executable}
    vars: [{name: ansible_become_exe}, {name: ansible_sudo_exe}]
    env: [{name: ANSIBLE_BECOME_EXE}, {name: ANSIBLE_SUDO_EXE}]
    keyword: [{name: become_exe}]
  become_flags:
    description: Options of sudo.
    default: -H -S -n
    ini:
      - {section: privilege_escalation, key: become_flags}
      - {section: sudo_become_plugin, key: flags}
    vars: [{name: ansible_become_flags}, {name: ansible_sudo_flags}]
    env: [{name: ANSIBLE_BECOME_FLAGS}, {name: ANSIBLE_SUDO_FLAGS}]
    keyword: [{name: become_flags}]
  become_pass:
    description: The password that sudo asks for.
    ini: [{section: sudo_become_plugin, key: password}]
    vars: [{name: ansible_become_password}, {name: ansible_become_pass}, {name: ansible_sudo_pass}]
    env: [{name: ANSIBLE_BECOME_PASS}, {name: ANSIBLE_SUDO_PASS}]
  sudo_chdir:
    description: The directory that sudo is run in.
    vars: [{name: ansible_sudo_chdir}]
    env: [{name: ANSIBLE_SUDO_CHDIR}]
    ini: [{section: sudo_become_plugin, key: chdir}]
"""

from typing import Any

from ansible.plugins.become.sudo import BecomeModule as Sudo


class BecomeModule(Sudo):
    """Ansible's sudo, behind a question that the host's shell answers."""

    def build_become_command(self, cmd: str, shell: Any) -> str:
        """The command as it is for root, who wants to be root, and by sudo for everybody else."""
        by_sudo = super().build_become_command(cmd, shell)
        if not cmd or self.get_option("become_user") not in ("root", "", None):
            return by_sudo
        return f'if [ "$(id -u)" = 0 ]; then {self._build_success_command(cmd, shell)}; else {by_sudo}; fi'
