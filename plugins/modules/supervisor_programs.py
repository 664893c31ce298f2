#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: apply a manifest of Supervisor programs to one host, generation by generation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor_programs
short_description: Hand programs under Supervisor over from one generation to the next
description:
  - Makes the conf.d files and the running programs of one owner match a manifest, in one call.
  - A program whose conf is unchanged and which runs is not touched and keeps its PID. A new generation is
    started, has to be ready (it came up, its ready command said yes, it stayed up) and only then is the old one
    stopped.
  - If a new generation does not become ready, everything goes back to where it was, and the module fails with what
    was seen.
  - The whole configuration is parsed by Supervisor's own parser before a file lands, and all files are written
    before a program is stopped.
  - A generation that is not ready yet, and one that retires, has a link in O(conf_dir) that leads into
    O(volatile_dir). A reboot empties that, so that the generation that was ready last runs afterwards, and no other.
    The next run deletes links that lead nowhere. Where a reboot does not empty C(/run), as in a container without a
    tmpfs there, a reboot in the middle of a handover starts both generations, until the next run.
  - >-
    Only files that carry the owner's mark, and the programs of these files, are ever touched. The mark is a
    line of its own in the conf: C(# owner: celery-ops <prefix>), with one of O(program_prefixes).
  - Asks supervisord to read its files anew even in check mode, which starts and stops nothing.
requirements:
  - Debian's package C(supervisor) on the host. In check mode it may be missing as yet.
options:
  program_prefixes:
    description:
      - What the names of this owner's programs begin with, for instance C(petct-worker-). With several, the call is
        about the programs of them all.
    type: list
    elements: str
    required: true
  programs:
    description: The programs that are to run. What is owned and not listed is stopped and removed.
    type: list
    elements: dict
    default: []
    suboptions:
      program:
        description: What the name of a generation begins with, and what stays the same from one to the next.
        type: str
        required: true
      name:
        description:
          - The name of the generation. The program, a dash and 8 hex digits; or the program itself for one without
            generations, which is then restarted when its conf changes.
        type: str
        required: true
      conf:
        description:
          - The text of C(<conf_dir>/<name>.conf), with the owner's mark and the section C([program:<name>]).
        type: str
        required: true
      ready:
        description:
          - A command that tells whether the program works. Yes is exit status 0 and, if its last line of
            output is a JSON object with the key C(ready), that being true. Any other answer is asked for
            again until O(programs[].ready_timeout); C(reason) in the JSON, or the last line of output, is
            reported.
          - Runs as the module's user, from the start of the program on. Without it, C(RUNNING) is enough.
        type: list
        elements: str
        default: []
      ready_timeout:
        description: Seconds until the program must be C(RUNNING) and ready.
        type: int
        default: 30
      min_uptime:
        description: Seconds that the program must stay up, with one PID, after it was ready.
        type: int
        default: 0
      lasting_children:
        description:
          - After its O(programs[].min_uptime), one of the processes that it started has to have lasted, if there are
            any, and to wait for work; while it loads its code it is waited for. For a server that starts its own
            processes again and again, whatever they die of, and stays up itself.
        type: bool
        default: false
      strategy:
        description:
          - V(overlap) starts the new generation beside the old one, waits until it is ready, then stops the old one.
          - V(replace) stops the old one, then starts the new one. Never do two run, and the gap is measured.
          - V(rolling) is V(overlap) for a program at a time, so that at most one more than usual is in memory. If
            a later program fails, those handed over already go back.
          - All programs but those of V(rolling) go at once - what is replaced stops, everything new starts and becomes
            ready, then the old ones that are left stop - and before those of V(rolling).
        type: str
        choices: [overlap, rolling, replace]
        default: overlap
      restore_strategy:
        description: The strategy by which a rollback brings it back, if that is another.
        type: str
        choices: [overlap, rolling, replace]
      stop_timeout:
        description:
          - Seconds to wait for the old generation to finish. By default, and if this is C(stopwaitsecs) or
            more, until 10 s after its C(stopwaitsecs), when supervisord has killed it. One that still
            drains is left to itself.
        type: int
      log:
        description: The program's log, whose last lines are shown if it fails.
        type: path
      replaces:
        description: Programs of other names that it takes over from, for one that was renamed.
        type: list
        elements: str
        default: []
      beside:
        description:
          - What the conf of an older generation holds that this one may start beside. Any other that runs is stopped
            first, as with V(replace).
        type: str
        default: ""
  state:
    description: V(absent) stops, drains and removes all that is owned; O(programs) must then be empty.
    type: str
    choices: [present, absent]
    default: present
  successors_only:
    description:
      - Leave out those O(programs) of which nothing runs here as yet, for a later call. Where one is replaced on one
        host and its like starts on another, the first is stopped before the second starts.
    type: bool
    default: false
  leavers_only:
    description:
      - Remove what runs here where there is no program in its place, neither in O(programs) nor in the record, and do
        nothing else. Where one starts on a host and its like leaves another, the second stops before the first starts.
    type: bool
    default: false
  producers:
    description:
      - Those of O(programs[].program) that send tasks to the others. They start when the others are ready and the
        older generations of these take nothing more; then all are observed at once. Where an older one can't be held,
        the new ones are observed first and the old ones told to stop, to which nothing leads back then.
    type: list
    elements: str
    default: []
  app:
    description:
      - The application, whose name the defaults of other options hold. With it, the programs are noted in the record of
        the deployment that is under way, and the work is done by a process of its own, under the application's lock in
        C(/run/celery-ops), which goes on when the connection is lost; see C(module_utils/host_work.py).
    type: str
  phase:
    description: What is handed over, for the record and for whoever looks at the work.
    type: str
    default: ""
  draft:
    description: The deployment that begins with this call, for the record; see C(module_utils/deployments.py).
    type: dict
  restore:
    description:
      - The id of a deployment of O(app). Its programs are brought back as they ran, from its record; O(programs) are
        only for a host without that record. It was healthy before, so there is no observation period, and what
        has a V(restore_strategy) is brought back by that.
    type: str
  restart:
    description:
      - Programs of the deployment of O(app) that is live. Each is handed over to another generation, which equals the
        one that runs but for its name. All other programs are left alone.
    type: list
    elements: str
    default: []
  conf_dir:
    description: Where the conf files are.
    type: path
    default: /etc/supervisor/conf.d
  supervisord_conf:
    description: The configuration of supervisord, which also says where it listens.
    type: path
    default: /etc/supervisor/supervisord.conf
  volatile_dir:
    description: Where the conf files are that must not outlive a reboot. By default C(/run/celery-ops/<app>/conf.d).
    type: path
  release_root:
    description:
      - Where releases are, C(/srv/<app>) by default. A program or ready command that can't be executed is the release's
        fault if it is in there, and the host's if not.
    type: path
  log_dir:
    description: Where the logs of the programs are, C(/var/log/<app>) with O(app). It must be root's.
    type: path
  run_dir:
    description: Where the pidfiles, locks and heartbeats of the programs are, C(/run/<app>) with O(app).
    type: path
  keep_logs:
    description: Of how many generations that are gone to keep the logs, for each program.
    type: int
    default: 5
  drain_wait:
    description:
      - Seconds that this call waits for old generations to finish; what still drains is listed in RV(draining), and
        no later call with a O(drain_wait) waits for it. With O(app), a process of its own stays until they are gone,
        and removes their conf files. By default, the call waits until they are gone. With V(rolling), it limits the
        wait for the last program only; with V(replace), it has no effect.
    type: int
  run:
    description: The run of ansible-playbook; set by the action plugin.
    type: str
    default: ""
  job:
    description: The work whose answer is awaited; set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Reports exactly what would be done.
  diff_mode:
    support: full
    description: Shows the conf files.
author:
  - celery-ops (@celery-ops)
"""

EXAMPLES = r"""
- name: Run the workers
  celery_ops.kit.supervisor_programs:
    program_prefixes: [petct-worker-]
    programs:
      - program: petct-worker-default
        name: petct-worker-default-1a2b3c4d
        conf: "{{ lookup('template', 'supervisor/program.conf.j2') }}"
        ready: [/srv/petct/current/bin/celery-ops-ready, -A, petct]
        ready_timeout: 30
        min_uptime: 5
        log: /var/log/petct/petct-worker-default-1a2b3c4d.log

- name: Remove them
  celery_ops.kit.supervisor_programs:
    program_prefixes: [petct-worker-]
    state: absent
"""

RETURN = r"""
seconds: {description: What it took., type: float, returned: success}
programs:
  description: What was done with each program, in the order of the manifest, then what was removed.
  returned: always
  type: list
  elements: dict
  contains:
    program: {description: The program that it is a generation of., type: str, returned: always}
    name: {description: Its name., type: str, returned: always}
    action:
      description:
        - V(unchanged); V(started), for the first time or because it was down; V(handed_over) from older
          generations; V(replaced), old stopped first; V(restarted), with a changed conf under the same name;
          V(rewritten), only the text of the file changed and the process goes on; V(drained), it ran already, and
          what it took over from finished; V(removed).
      type: str
      returned: always
    from: {description: Older generations it took over from., type: list, elements: str, returned: always}
    pid: {description: The PID it runs with., type: int, returned: always}
    seconds:
      description: C(ready), from start until ready; C(drain), until the old one had ended.
      type: dict
      returned: always
    gap: {description: Seconds from stopping the old until the new was ready., type: float, returned: always}
    killed:
      description: Old generations that supervisord had to kill after their stopwaitsecs.
      type: list
      elements: str
      returned: always
    draining:
      description: Old generations that had not finished within O(programs[].stop_timeout) and still do.
      type: list
      elements: str
      returned: always
draining: {description: All old generations that still drain., type: list, elements: str, returned: success}
told: {description: The old generations that this call has told to stop., type: list, elements: str, returned: success}
pruned:
  description: Logs, locks and other files of generations that are gone, which were deleted.
  returned: success
  type: list
  elements: str
failed_program:
  description: The program that did not come up.
  returned: on failure of a program
  type: str
release_fault:
  description:
    - Whether the release itself is the cause - its program did not come up, was not ready or did not stay up. Not so
      for another's conf file, a full disk, a program that the host lacks, an interruption.
  returned: on failure
  type: bool
interrupted:
  description: Whether a signal ended the call; RV(draining) then says which old generations finish by themselves.
  returned: on failure of a handover
  type: bool
log_tail:
  description: The last 20 lines of its log.
  returned: on failure of a program
  type: list
  elements: str
"""

import time
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import host_work
from ansible_collections.celery_ops.kit.plugins.module_utils.disk import explain
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import Interrupted
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, START_TIMEOUT, SUPERVISORD_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.manifest import HandoverFailed, Manifest
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

STRATEGIES = ["overlap", "rolling", "replace"]

ARGUMENTS: dict[str, Any] = {
    "program_prefixes": {"type": "list", "elements": "str", "required": True},
    "programs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "program": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "conf": {"type": "str", "required": True},
            "ready": {"type": "list", "elements": "str", "default": []},
            "ready_timeout": {"type": "int", "default": START_TIMEOUT},
            "min_uptime": {"type": "int", "default": 0},
            "lasting_children": {"type": "bool", "default": False},
            "strategy": {"type": "str", "choices": STRATEGIES, "default": "overlap"},
            "restore_strategy": {"type": "str", "choices": STRATEGIES},
            "stop_timeout": {"type": "int"},
            "log": {"type": "path"},
            "replaces": {"type": "list", "elements": "str", "default": []},
            "beside": {"type": "str", "default": ""},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "successors_only": {"type": "bool", "default": False},
    "leavers_only": {"type": "bool", "default": False},
    "producers": {"type": "list", "elements": "str", "default": []},
    "app": {"type": "str"},
    "draft": {"type": "dict"},
    "restore": {"type": "str"},
    "restart": {"type": "list", "elements": "str", "default": []},
    "conf_dir": {"type": "path", "default": str(CONF_D)},
    "supervisord_conf": {"type": "path", "default": str(SUPERVISORD_CONF)},
    "volatile_dir": {"type": "path"},
    "release_root": {"type": "path"},
    "log_dir": {"type": "path"},
    "run_dir": {"type": "path"},
    "keep_logs": {"type": "int", "default": 5},
    "drain_wait": {"type": "int"},
    **host_work.OPTIONS,
}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    work, begun = host_work.detach(module, module.params["phase"] or "programs"), time.monotonic()
    manifest = Manifest(module.params, module.check_mode, module.warn)
    try:
        manifest.prepare()
        if not module.check_mode:
            manifest.record()
            work.say(ends_within=manifest.ends_within)
        if manifest.is_change and not module.check_mode:
            manifest.apply()
    except HandoverFailed as failure:
        module.fail_json(msg=str(failure), programs=[], **failure.facts)
    except (OperatorError, OSError, Interrupted) as error:
        told = explain(error, manifest.app) if isinstance(error, OSError) else str(error)
        module.fail_json(msg=told, release_fault=False, programs=[])
    module.exit_json(**manifest.result(), seconds=round(time.monotonic() - begun, 2))


if __name__ == "__main__":
    main()
