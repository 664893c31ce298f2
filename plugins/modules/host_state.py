#!/usr/bin/python
"""Bring files, directories, packages, accounts and services of a host to what they are to be, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Bring files, packages, accounts and services of a host to what they are to be, in one call
version_added: 0.2.0
description:
  - Takes steps in their order, and asks the host about all of them in one call. What is right already stays untouched,
    what was edited by hand is corrected.
  - Units of systemd are read again before a service starts, and at the end, where a step has changed a file of theirs.
options:
  steps:
    description: >-
      What the host is to have. Each step has one of O(steps[].directory), O(steps[].file), O(steps[].edit),
      O(steps[].packages), O(steps[].user), O(steps[].group_name), O(steps[].service), O(steps[].process) and
      O(steps[].steps).
    type: list
    elements: dict
    required: true
    suboptions:
      when:
        description: Whether the step is to be taken.
        type: bool
        default: true
      steps:
        description: Steps that are taken in the place of this one, where its O(steps[].when) holds.
        type: list
        elements: dict
      later:
        description: >-
          Whether the step is only looked at. What it would change, RV(due) says: another call is to take it.
        type: bool
        default: false
      needs:
        description: Paths that have to be on the host; without one of them the step is left out.
        type: list
        elements: path
        default: []
      unless:
        description: Paths of which none may be on the host; with one of them the step is left out.
        type: list
        elements: path
        default: []
      directory:
        description: A directory. Those above it are made as well.
        type: path
      file:
        description: A file, with O(steps[].template) or O(steps[].content). It is replaced in one step.
        type: path
      template:
        description: A template of the role, rendered on the control node.
        type: str
      content:
        description: The file's text.
        type: str
      secret:
        description: The same, shown nowhere. Made of O(steps[].template) where that is O(steps[].hidden).
        type: str
      hidden:
        description: Whether no output may show the file's text.
        type: bool
        default: false
      validate:
        description: A command that has to accept the file before it is put in place; V(%s) stands for its path.
        type: str
        default: ""
      owner:
        description: The owner. Of a file root by default; that of a directory stays.
        type: str
      group:
        description: Likewise the group.
        type: str
      mode:
        description: The mode, such as V("0640"); by default V("0644"), of a directory V("0755").
        type: str
      edit:
        description: A file of somebody else's that is to have O(steps[].line).
        type: path
      line:
        description: A line; of an O(steps[].section), an option, as C(option=value).
        type: str
        default: ""
      section:
        description: The section of an ini file; empty for the end of the file.
        type: str
        default: ""
      packages:
        description: Debian packages to install.
        type: list
        elements: str
      source:
        description: A package source, as of the module M(celery_ops.kit.packages).
        type: dict
        default: {}
      source_name:
        description: What its files are called.
        type: str
        default: celery-ops
      user:
        description: A system user that nobody logs in as.
        type: str
      home:
        description: Its home directory, which is not made.
        type: str
        default: /nonexistent
      group_name:
        description: A system group.
        type: str
      service:
        description: A unit of systemd's, without C(.service), to start now and at boot.
        type: str
      process:
        description: >-
          A name for a process that systemd has not started: one of Supervisor's, or of an init script's. It is only
          looked at, for O(steps[].reads).
        type: str
      pid:
        description: A command that prints the process's pid.
        type: list
        elements: str
        default: []
      answers:
        description: A command that has to succeed before the step is done.
        type: list
        elements: str
        default: []
      reads:
        description: >-
          Files that the service or process reads when it starts. RV(unread) names one that runs since before they were
          written.
        type: list
        elements: path
        default: []
attributes:
  check_mode: {support: full, description: Says what would change.}
  diff_mode: {support: full, description: "Shows texts and modes; what is hidden is not shown."}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- host_state:
    steps:
      - directory: /etc/crm
      - file: /etc/crm/crm.conf
        template: crm.conf.j2
      - packages: [crm]
      - service: crm
        answers: [crmctl, ping]
"""
RETURN = r"""
paths:
  description: The files and directories that were not as they are to be.
  type: list
  elements: str
  returned: success
packages:
  description: The packages that were installed.
  type: list
  elements: str
  returned: success
unlike:
  description: "Installed packages whose version is not the one of O(steps[].source): by name, what is installed."
  type: dict
  returned: success
due:
  description: "What steps with O(steps[].later) would change: paths, and services that would start."
  type: list
  elements: str
  returned: success
unread:
  description: >-
    The services and processes that have not read one of their files (O(steps[].reads)) as it is, and are to be
    restarted, as after a run that was interrupted.
  type: list
  elements: str
  returned: success
started:
  description: The services that were started just now, with the files as they are.
  type: list
  elements: str
  returned: success
"""

from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import explained
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import accounts, paths, services
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import AFTER, Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SYSTEMD_UNITS
from ansible_collections.celery_ops.kit.plugins.module_utils.services import packages
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

KINDS = ("directory", "file", "edit", "packages", "user", "group_name", "service", "process")
TEXT = {"type": "str", "default": ""}
STEP = {
    "when": {"type": "bool", "default": True},
    "steps": {"type": "list", "elements": "dict"},
    "later": {"type": "bool", "default": False},
    "needs": {"type": "list", "elements": "path", "default": []},
    "unless": {"type": "list", "elements": "path", "default": []},
    "directory": {"type": "path"},
    "file": {"type": "path"},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "secret": {"type": "str", "no_log": True},
    "hidden": {"type": "bool", "default": False},
    "validate": TEXT,
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str"},
    "edit": {"type": "path"},
    "line": TEXT,
    "section": TEXT,
    "packages": {"type": "list", "elements": "str"},
    "source": {"type": "dict", "default": {}},
    "source_name": {"type": "str", "default": "celery-ops"},
    "user": {"type": "str"},
    "home": {"type": "str", "default": "/nonexistent"},
    "group_name": {"type": "str"},
    "service": {"type": "str"},
    "process": {"type": "str"},
    "pid": {"type": "list", "elements": "str", "default": []},
    "answers": {"type": "list", "elements": "str", "default": []},
    "reads": {"type": "list", "elements": "path", "default": []},
}


def take(step: dict[str, Any], outcome: Outcome) -> None:
    """Take a step. Raises OperatorError, and OSError naming a path."""
    if step["directory"]:
        paths.directory(Path(step["directory"]), access(step, "0755"), outcome)
    elif step["file"]:
        content = step["content"] if step["secret"] is None else step["secret"]
        rights = access({**step, "owner": step["owner"] or "root", "group": step["group"] or "root"}, "0644")
        hidden = step["secret"] is not None
        paths.file(Path(step["file"]), content, rights, outcome, hidden=hidden, validate=step["validate"])
    elif step["edit"]:
        paths.edited(Path(step["edit"]), outcome, step["section"], step["line"])
    elif step["packages"] is not None:
        found = packages.install(step["packages"], step["source"], step["source_name"], outcome.check)
        outcome.packages += found["packages"]
        outcome.unlike |= found["unlike"]
        if found["changed"]:
            outcome.diff += found["diff"] if isinstance(found["diff"], list) else [found["diff"]]
    elif step["user"]:
        accounts.user(step["user"], step["home"], outcome)
    elif step["group_name"]:
        accounts.group(step["group_name"], outcome)
    elif step["process"]:
        services.process(step["process"], step["pid"], outcome, step["reads"])
    else:
        services.service(step["service"], step["answers"], outcome, step["reads"])


def access(step: dict[str, Any], mode: str) -> paths.Access:
    """The owner, group and mode of a step."""
    return paths.Access(int(step["mode"] or mode, 8), step["owner"], step["group"])


def is_wanted(step: dict[str, Any]) -> bool:
    """Whether a step is to be taken on this host as it is now."""
    there = Path.exists
    return (
        step["when"]
        and all(there(Path(path)) for path in step["needs"])
        and not any(there(Path(path)) for path in step["unless"])
    )


def take_all(steps: list[dict[str, Any]], outcome: Outcome) -> None:
    """Take the steps in their order. Raises OperatorError, and OSError naming a path."""
    read = 0
    for step in steps:
        if not is_wanted(step):
            continue
        if step["later"]:
            look(step, outcome)
            continue
        if step["service"]:
            read = reload_units(outcome, read)
        take(step, outcome)
    reload_units(outcome, read)


def look(step: dict[str, Any], outcome: Outcome) -> None:
    """Note what a step would change that a later call is to take."""
    found = Outcome(check=True)
    take(step, found)
    outcome.due += [change["after_header"].removesuffix(AFTER) for change in found.diff]


def reload_units(outcome: Outcome, read: int) -> int:
    """Make systemd read its units where a changed path after the first `read` is a unit's; return their count."""
    if any(Path(path).is_relative_to(SYSTEMD_UNITS) for path in outcome.paths[read:]) and not outcome.check:
        services.reload()
    return len(outcome.paths)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "steps": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": STEP,
                "mutually_exclusive": [KINDS],
                "required_one_of": [KINDS],
            }
        },
        supports_check_mode=True,
    )
    outcome = Outcome(module.check_mode)
    try:
        take_all(module.params["steps"], outcome)
    except OperatorError as why:
        module.fail_json(msg=str(why), **outcome.result())
    except OSError as why:
        module.fail_json(msg=explained(why), **outcome.result())
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.result())


if __name__ == "__main__":
    main()
