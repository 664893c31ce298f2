#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Restart this host's RabbitMQ; in a cluster only while the others can stand in for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rabbitmq_restart
short_description: Restart this host's RabbitMQ; in a cluster only while the others can stand in for it
description:
  - Refuses to begin while a member does not run, while there is an alarm or a partition. Gives quorum queues that
    could not
    go on without this node further members, waits until every queue has a majority without it, drains it (leaders and
    connections move to the others), restarts it, and waits until it is back and its queues have caught up.
  - A broker that is alone is restarted at once; nobody can publish meanwhile.
  - Let it run on one host at a time (C(throttle), or C(serial) of the play).
options:
  node:
    description: Erlang's name of this node.
    type: str
    required: true
  files:
    description: >-
      Restart only if one of these files is newer than the running broker; without any, restart in any case.
    type: list
    elements: path
    default: []
  upgrade:
    description:
      - Upgrade RabbitMQ and Erlang to the versions that apt has, while this node is stopped; without such, nothing
        happens. A version that can't start on the data of the installed one is refused. A broker that is alone then
        enables the feature flags of its version, which a later one may need.
    type: bool
    default: false
  epmd_files:
    description: Restart Erlang's port mapper as well if one of these files is newer than it.
    type: list
    elements: path
    default: []
  service_manager:
    description: What runs the service.
    type: str
    choices: [systemd, sysvinit]
    default: systemd
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 300
attributes:
  check_mode: {support: full, description: Says whether it would restart the broker.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- rabbitmq_restart:
    node: rabbit@broker1
  throttle: 1
"""
RETURN = r"""
seconds:
  description: By step, what it took.
  returned: success
  type: dict
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import explained, reported
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_cluster as cluster
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq_versions
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import PACKAGES, run
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

SERVICE = "rabbitmq-server"
UPGRADE = "rabbitmq-upgrade"
APT_TIMEOUT = 1800
"""Seconds that a download or an upgrade may take."""


class Restart:
    """One restart, step by step; `seconds` tells what each has taken."""

    def __init__(self, node: str, timeout: int, has_systemd: bool, packages: list[str] | None = None) -> None:
        self.node, self.timeout, self.has_systemd = node, timeout, has_systemd
        self.packages = packages or []
        """What is upgraded while the broker is stopped."""
        self.seconds: dict[str, float] = {}

    def run(self, *, epmd: bool) -> None:
        """Do it. Raises OperatorError; a node that was drained and did not come back is said to be."""
        members = cluster.members_of(self.node)
        if self.packages:  # before anything is stopped
            self._step("download", lambda: apt("install", "--only-upgrade", "--download-only", *self.packages))
        if len(members) < 2:
            self._step("check", self._refuse_alarms)
            self._step("restart", lambda: self._restart(epmd=epmd))
            self._step("return", lambda: self._await_return([self.node]))
            if self.packages:  # in a cluster once all nodes are upgraded: by rabbitmq_cluster
                self._step("feature flags", lambda: cluster.ctl("enable_feature_flag", "all"))
            return
        self._step("check", lambda: self._check(members))
        self._step("await majority", self._await_majority)
        self._step("drain", lambda: cluster.ctl("drain", program=UPGRADE, timeout=self.timeout))
        self._step("restart", lambda: self._restart(epmd=epmd))
        self._step("return", lambda: self._await_return(members))
        self._step("catch up", self._await_majority)

    def _step(self, name: str, do: Callable[[], object]) -> None:
        begun = time.monotonic()
        try:
            do()
        except OperatorError as why:
            raise OperatorError(f"{self.node}, step {name}: {why}") from why
        self.seconds[name] = round(time.monotonic() - begun, 1)

    def _refuse_alarms(self) -> None:
        """A broker that is alone and does not answer is restarted: it may be the cure."""
        try:
            state = cluster.state()
        except OperatorError:
            return
        if state.alarms:
            raise OperatorError(
                f"there is an alarm: {'; '.join(state.alarms)}. End its cause first; nothing was restarted"
            )

    def _check(self, members: list[str]) -> None:
        state = cluster.state()
        faults = [*state.faults(members), *(f"alarm: {alarm}" for alarm in state.alarms)]
        if faults:
            raise OperatorError(f"{'; '.join(faults)}. End that first; this node was not restarted")
        for node, queues in cluster.additions(cluster.details().short_queues, members).items():
            cluster.grow(node, queues, self.timeout)

    def _await_majority(self) -> None:
        words = ("await_online_quorum_plus_one", "--timeout", str(self.timeout))
        cluster.ctl(*words, program=UPGRADE, timeout=self.timeout + 10)

    def _restart(self, *, epmd: bool) -> None:
        self._service("stop", SERVICE)
        try:
            if self.packages:
                apt("install", "--only-upgrade", *self.packages)
        finally:  # also what could not be upgraded goes on to serve
            if epmd:
                self.restart_epmd()
            self._service("start", SERVICE)

    def restart_epmd(self) -> None:
        """Restart Erlang's port mapper, at which a running broker would be unknown. Raises OperatorError."""
        self._service("stop", "epmd.service")
        self._service("restart", "epmd.socket")

    def _service(self, verb: str, name: str) -> None:
        words = ("systemctl", verb, name) if self.has_systemd else ("service", name, verb)
        rc, out = run("timeout", str(self.timeout), *words, timeout=self.timeout + 10)
        if rc:
            raise OperatorError(
                f"{' '.join(words)} ended with {rc}: {out.strip()[-400:]}. Look: journalctl -u {name}; "
                "/var/log/rabbitmq"
            )

    def _await_return(self, members: list[str]) -> None:
        cluster.await_nodes(
            members,
            self.timeout,
            lambda faults: f"the broker did not come back: {'; '.join(faults)}. Look: /var/log/rabbitmq",
        )


def apt(*words: str) -> str:
    """Run apt-get, once nobody else does; return what it prints. Raises OperatorError."""
    options = ("-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
    rc, out = run("apt-get", *options, *words, timeout=APT_TIMEOUT, DEBIAN_FRONTEND="noninteractive")
    if rc:
        raise OperatorError(explained(f"apt-get {' '.join(words)} ended with {rc}: {out.strip()[-400:]}"))
    return out


def to_upgrade(node: str) -> list[str]:
    """Return RabbitMQ's package and Erlang's, where apt has another version of one. Raises OperatorError."""
    if why := rabbitmq_versions.cannot_follow(rabbitmq_versions.versions(node)):
        raise OperatorError(f"{why}; nothing was upgraded")
    out = run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", "erlang*")[1]
    erlang = [line.split()[1] for line in out.splitlines() if line.startswith("installed ")]
    packages = [PACKAGES["rabbitmq"], *erlang]
    plan = apt("install", "--only-upgrade", "--simulate", *packages)
    return packages if any(line.startswith("Inst ") for line in plan.splitlines()) else []


def since(unit: str) -> float:
    """Return when a unit of systemd was started, as Unix time; 0 where it does not run, or systemd is not there."""
    names = ("ActiveState", "MainPID", "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    rc, out = run("systemctl", "show", unit, f"--property={','.join(names)}")
    begun = started({} if rc else dict(line.partition("=")[::2] for line in out.splitlines()))
    return begun and time.time() - (time.clock_gettime(time.CLOCK_MONOTONIC) - begun)


def started(said: dict[str, str]) -> float:
    """Return when a unit with these properties was started, by the monotonic clock; 0 where it does not run.

    A service reads its files when its process starts, and not when it is active, which takes RabbitMQ many seconds. One
    that is activating has no process between two attempts.
    """
    if said.get("ActiveState") not in ("active", "activating") or said.get("MainPID") == "0":
        return 0.0
    # A socket has no process.
    return int(said.get("ExecMainStartTimestampMonotonic") or said.get("ActiveEnterTimestampMonotonic") or 0) / 1e6


def newer(files: list[str], moment: float) -> list[str]:
    """Return the files that were changed after a moment."""
    return [file for file in files if Path(file).exists() and Path(file).stat().st_mtime > moment]


def work(module: AnsibleModule) -> NoReturn:
    """Restart it, if it is to be. Raises OperatorError."""
    has_systemd = module.params["service_manager"] == "systemd"
    files, epmd_files = module.params["files"], module.params["epmd_files"]
    mapper, begun = since("epmd.socket"), since(SERVICE)
    epmd = bool(has_systemd and mapper and newer(epmd_files, mapper))
    if files and not epmd and (not begun or not newer(files, begun)):  # one that does not run reads them at its start
        module.exit_json(changed=False, seconds={})
    packages: list[str] = []
    if module.params["upgrade"]:
        if not module.check_mode:
            apt("update")
        packages = to_upgrade(module.params["node"])
        if not packages:
            module.exit_json(changed=False, seconds={})
    if module.check_mode:
        module.exit_json(changed=True, seconds={})
    if epmd:
        run("systemctl", "daemon-reload")
    restart = Restart(module.params["node"], module.params["timeout"], has_systemd, packages)
    if files and not begun:
        restart.restart_epmd()
    else:
        restart.run(epmd=epmd)
    module.exit_json(changed=True, seconds=restart.seconds)


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "upgrade": {"type": "bool", "default": False},
            "epmd_files": {"type": "list", "elements": "path", "default": []},
            "service_manager": {"type": "str", "choices": ["systemd", "sysvinit"], "default": "systemd"},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    with reported(module):
        work(module)


if __name__ == "__main__":
    main()
