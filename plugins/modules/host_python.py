#!/usr/bin/python
"""Documentation of the action plugin of the same name, which works by the host's shell alone."""

DOCUMENTATION = r"""
module: host_python
short_description: Install Python on a host that has none
description:
  - The first that the kit does on a host, and so the one that says why it can't become root there.
  - Does nothing where C(ansible_python_interpreter) names another Python than Debian's. In check mode it fails where
    Python is missing, as nothing else could look at the host.
options:
  script:
    description: The shell script that installs it.
    type: str
    required: true
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- host_python:
    script: "{{ lookup('ansible.builtin.file', 'install_python.sh') }}"
"""
RETURN = ""
