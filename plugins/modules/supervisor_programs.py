#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: apply a manifest of Supervisor programs to one host, generation by generation."""

from __future__ import annotations

import os
import signal
import sys
import time
import xmlrpc.client
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.supervisor_conf import ConfDir, Parser, Program, check_manifest
from ansible.module_utils.supervisor_handover import Handover, Step, orphans_of, plan
from ansible.module_utils.supervisor_proof import NotProven, log_tail
from ansible.module_utils.supervisor_rpc import Endpoint, NoSupervisord, Process, Reread, Supervisord, Trouble

DOCUMENTATION = r"""
module: supervisor_programs
short_description: Hand programs under Supervisor over from one generation to the next
description:
  - Makes the conf.d files and the running programs of one owner match a manifest, in one call.
  - A program whose conf is unchanged and which runs is not touched and keeps its PID. A new generation is
    started, proven (it came up, its ready command said yes, it stayed up) and only then is the old one
    stopped.
  - If a new generation is not proven, everything goes back to where it was, and the module fails with what
    was seen.
  - The whole configuration is parsed by Supervisor's own parser before a file lands.
  - >-
    Only files that carry the owner's mark, and the programs of these files, are ever touched. The mark is a
    line of its own in the conf: C(# owner: celery-ops <family_prefix>).
  - Asks supervisord to read its files anew even in check mode, which starts and stops nothing.
requirements:
  - Debian's package C(supervisor) on the host. In check mode it may be missing as yet.
options:
  family_prefix:
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
      family:
        description: What stays the same from one generation to the next.
        type: str
        required: true
      name:
        description:
          - The name of the generation. The family, a dash and 8 hex digits; or the family itself for a
            program without generations, which is then restarted when its conf changes.
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
      settle:
        description: Seconds that the program must stay up, with one PID, after it was ready.
        type: int
        default: 0
      lasting_children:
        description:
          - When it has settled, one of the processes that it started has to have lasted, if there are any. For a server
            that starts its own processes again and again, whatever they die of, and so stays up itself.
        type: bool
        default: false
      strategy:
        description:
          - V(overlap) starts the new generation beside the old one, proves it, then stops the old one.
          - V(replace) stops the old one, then starts the new one. Never do two run, and the gap is measured.
          - V(one_by_one) is V(overlap) for a program at a time, so that at most one more than usual is in memory. If
            a later program fails, those handed over already go back.
          - All programs but those of V(one_by_one) go at once - what is replaced stops, everything new starts and is
            proven, then the old ones that are left stop - and before those of V(one_by_one).
        type: str
        choices: [overlap, one_by_one, replace]
        default: overlap
      stop_timeout:
        description:
          - Seconds to wait for the old generation to finish. By default, and if this is C(stopwaitsecs) or
            more, until 10 s after its C(stopwaitsecs), when supervisord has killed it. One that still
            drains is left to itself.
        type: int
      log:
        description: The program's log, whose last lines are shown if it fails.
        type: path
  state:
    description: V(absent) stops, drains and removes all that is owned; O(programs) must then be empty.
    type: str
    choices: [present, absent]
    default: present
  conf_dir:
    description: Where the conf files are.
    type: path
    default: /etc/supervisor/conf.d
  supervisord_conf:
    description: The configuration of supervisord, which also says where it listens.
    type: path
    default: /etc/supervisor/supervisord.conf
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
  supervisor_programs:
    family_prefix: petct-worker-
    programs:
      - family: petct-worker-default
        name: petct-worker-default-1a2b3c4d
        conf: "{{ lookup('template', 'supervisor/program.conf.j2') }}"
        ready: [/srv/petct/current/venv/bin/celery-ops-ready, -A, petct]
        ready_timeout: 30
        settle: 5
        log: /var/log/petct/petct-worker-default-1a2b3c4d.log

- name: Remove them
  supervisor_programs:
    family_prefix: petct-worker-
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
    family: {description: Its family., type: str, returned: always}
    name: {description: Its name., type: str, returned: always}
    action:
      description:
        - V(unchanged); V(started), for the first time or because it was down; V(handed_over) from older
          generations; V(replaced), old stopped first; V(restarted), with a changed conf under the same name;
          V(rewritten), only the text of the file changed and the process goes on; V(removed).
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
failed_program:
  description: The program that did not come up.
  returned: on failure of a program
  type: str
log_tail:
  description: The last 20 lines of its log.
  returned: on failure of a program
  type: list
  elements: str
"""

ARGUMENTS: dict[str, Any] = {
    "family_prefix": {"type": "list", "elements": "str", "required": True},
    "programs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "family": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "conf": {"type": "str", "required": True},
            "ready": {"type": "list", "elements": "str", "default": []},
            "ready_timeout": {"type": "int", "default": 30},
            "settle": {"type": "int", "default": 0},
            "lasting_children": {"type": "bool", "default": False},
            "strategy": {"type": "str", "choices": ["overlap", "one_by_one", "replace"], "default": "overlap"},
            "stop_timeout": {"type": "int"},
            "log": {"type": "path"},
        },
    },
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "conf_dir": {"type": "path", "default": "/etc/supervisor/conf.d"},
    "supervisord_conf": {"type": "path", "default": "/etc/supervisor/supervisord.conf"},
}

AWAIT_SUPERVISORD = 5.0
"""Seconds for a supervisord that has just been started to answer."""

AWAIT_STARTING = 30.0
"""Seconds to wait for programs that are just coming up, as after a boot, before judging them."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asks us to end."""


class Manifest:
    """One call of the module: what is wanted, what is there, and what follows from it."""

    def __init__(self, module: AnsibleModule) -> None:
        parameters = module.params
        self.module = module
        self.absent = parameters["state"] == "absent"
        self.prefixes = parameters["family_prefix"]
        self.programs = [Program(**program) for program in parameters["programs"]]
        self.conf_dir = ConfDir(Path(parameters["conf_dir"]), self.prefixes)
        self.supervisord_conf = Path(parameters["supervisord_conf"])
        self.supervisord: Supervisord | None = None
        self.processes: dict[str, Process] = {}
        self.reread = Reread(frozenset(), frozenset(), frozenset())
        self.stopwaitsecs: dict[str, int] = {}
        self.steps: list[Step] = []
        self.owned: dict[str, str] = {}

    def prepare(self) -> None:
        """Look at everything and plan, changing nothing. Raises Trouble for what is wrong already."""
        if not all(self.prefixes) or not self.prefixes or (self.absent and self.programs):
            raise Trouble("family_prefix must not be empty, and state=absent takes no programs.")
        check_manifest(self.prefixes, self.programs)
        self.owned = self.conf_dir.owned()
        self.conf_dir.refuse_foreign(program.name for program in self.programs)
        self._connect()
        differs = self._read_loaded() if self.supervisord else set()
        families = None if self.absent else {program.family for program in self.programs}
        orphans = orphans_of(self.prefixes, families, self.reread.removed)
        self.steps = plan(self.programs, self.owned, self.processes, differs, orphans)

    def _connect(self) -> None:
        """Find supervisord. It may be missing in check mode, and when files are all that's left to remove."""
        try:
            import supervisor  # noqa: F401
        except ImportError:
            if self.module.check_mode or self.absent:
                return
            raise Trouble(
                f"{sys.executable} can't import supervisor. Install Debian's package (apt-get install "
                f"supervisor) and let ansible_python_interpreter be /usr/bin/python3."
            ) from None
        try:
            supervisord = Supervisord(Endpoint.from_conf(self.supervisord_conf))
            supervisord.await_answer(0 if self.module.check_mode or self.absent else AWAIT_SUPERVISORD)
        except Trouble as trouble:
            gone = isinstance(trouble, NoSupervisord) or not self.supervisord_conf.exists()
            if gone and (self.module.check_mode or self.absent):
                self.module.warn(f"Looking at files only. {trouble}")
                return
            raise
        self.supervisord = supervisord

    def _read_loaded(self) -> set[str]:
        """Read what supervisord runs; return the intended programs whose loaded settings are others."""
        assert self.supervisord
        parser = Parser(self.supervisord_conf, self.conf_dir, self.supervisord.environment())
        try:
            current = parser.groups({})
        except ValueError:
            current = {}
        texts = {program.name: program.conf for program in self.programs}
        written = [name for name, text in texts.items() if self.owned.get(name) != text]
        intended = current if self.absent else parser.check(texts, written)
        self.stopwaitsecs = {
            name: group.process_configs[0].stopwaitsecs for name, group in intended.items() if group.process_configs
        }
        try:
            self.reread = self.supervisord.reread()
        except Trouble:
            if not (self.absent or written):
                raise
        self.processes = self._settled_processes()
        return {
            name
            for name in texts
            if name in self.processes
            and (name in self.reread.changed or (name in current and current[name] != intended[name]))
        }

    def _settled_processes(self) -> dict[str, Process]:
        assert self.supervisord
        deadline = time.monotonic() + (0 if self.module.check_mode else AWAIT_STARTING)
        names = {program.name for program in self.programs}
        while True:
            processes = self.supervisord.processes()
            moving = [name for name in names & set(processes) if processes[name].state in ("STARTING", "STOPPING")]
            if not moving or time.monotonic() >= deadline:
                return processes
            time.sleep(0.2)

    def result(self) -> dict[str, Any]:
        """Return what is reported whether or not it is done."""
        return {
            "changed": any(step.action != "unchanged" for step in self.steps),
            "programs": [step.result() for step in self.steps],
            "diff": self._diff(),
        }

    def _diff(self) -> list[dict[str, str]]:
        after = {program.name: program.conf for program in self.programs}
        return [
            {
                "before": self.owned.get(name, ""),
                "after": after.get(name, ""),
                "before_header": str(self.conf_dir.file(name)),
                "after_header": str(self.conf_dir.file(name)),
            }
            for name in sorted({*self.owned, *after})
            if self.owned.get(name) != after.get(name)
        ]

    def apply(self) -> None:
        """Carry the plan out; on failure go back and end the module with what was seen."""
        if self.supervisord is None:  # absent, and nothing can be running
            for step in self.steps:
                self.conf_dir.put(step.name, None)
            return
        handover = Handover(self.supervisord, self.conf_dir, self.stopwaitsecs)
        try:
            for number in SIGNALS:
                signal.signal(number, _interrupt)
            handover.run(self.steps)
        except (NotProven, Trouble, xmlrpc.client.Fault, OSError, Interrupted) as error:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # nothing interrupts the way back
            self._fail(handover, error)
        for warning in handover.warnings:
            self.module.warn(warning)

    def _fail(self, handover: Handover, error: BaseException) -> NoReturn:
        said = [f"{str(error).rstrip('.')}."]
        facts: dict[str, Any] = {}
        if isinstance(error, NotProven):
            facts = {"failed_program": error.program.name, "log_tail": log_tail(error.program.log)}
        if handover.committed:
            said.append(
                "The new generations are proven and stay, the old ones were told to finish. "
                "Run this again to complete the handover."
            )
        else:
            said += handover.undo.run()
            said += self._still_running()
            if isinstance(error, Interrupted):
                said.append("Run this again when you are ready.")
        if isinstance(error, NotProven):
            said.append(self._advice(error.program))
        if facts.get("log_tail"):
            said.append(f"The end of {error.program.log}:\n" + "\n".join(facts["log_tail"]))
        self.module.fail_json(msg=" ".join(said), warnings=handover.warnings, **facts, programs=[])

    def _still_running(self) -> list[str]:
        """Say which of the older generations have the same process as before."""
        assert self.supervisord
        try:
            now = self.supervisord.processes()
        except Trouble as trouble:
            return [str(trouble)]
        olds = [old for step in self.steps for old in step.olds]
        return [
            f"{old} keeps running (pid {now[old].pid})."
            for old in olds
            if old in now and old in self.processes and now[old].pid and now[old].pid == self.processes[old].pid
        ]

    def _advice(self, program: Program) -> str:
        look = f"tail -n 100 {program.log}" if program.log else f"supervisorctl tail {program.name}"
        return f"Look at its log ({look}), correct the release or its settings, and deploy again."


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"Interrupted by {signal.Signals(number).name}")


def main() -> None:
    """Run the module."""
    # Whatever the login has: hardened hosts have a umask of 027 or 077, and `su` no sbin.
    os.umask(0o022)
    os.environ["PATH"] = f"/usr/local/sbin:/usr/sbin:/sbin:{os.environ.get('PATH', os.defpath)}"
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    manifest, begun = Manifest(module), time.monotonic()
    try:
        manifest.prepare()
    except (Trouble, OSError) as error:
        module.fail_json(msg=str(error), programs=[])
    if not module.check_mode and manifest.result()["changed"]:
        manifest.apply()
    module.exit_json(**manifest.result(), seconds=round(time.monotonic() - begun, 2))


if __name__ == "__main__":
    main()
