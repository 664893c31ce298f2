"""What the kit derives from the variables of a host: lookup('celery_ops.kit.derived', 'broker_url')."""

from __future__ import annotations

DOCUMENTATION = r"""
name: derived
author: celery-ops (@celery-ops)
short_description: A value that the kit derives from a host's variables
description:
  - Answers a question about the application with the functions in C(plugins/plugin_utils), so that no template decides.
options:
  _terms:
    description: >-
      V(broker_url) and V(redis_url), the URLs with which the application logs in; V(broker_user), its user at the
      broker; V(broker_host), the address of the broker or of each node of a cluster, and V(result_store_host);
      V(migrate_host), the host that migrates where none is named; V(release), the release that this run is about;
      V(failures), what failed in it so far; V(lost), the failure of a host that is lost; V(all_built), whether every
      host of it has built the release; V(summary), what runs after it; V(to_ask), the hosts outside of it that know
      whether data are there already; V(ended_by), which host's failure has ended it, and why; V(groups), those of the
      kit's groups that the host is in;
      V(schedulers), the hosts that schedule its application; V(logs), the logs of all hosts merged, and V(tasks), the
      tasks of all workers, once they are registered; V(purge), the command that empties a queue; V(dead_letters), the
      command for the dead queue; V(uninstall), what goes from a host, and why its services must not; V(soak), commands
      and result of numbered tasks; V(report), the use of all hosts' programs, likewise; V(left), the groups that the
      host is not in and whose programs it still has; V(at_once), whether a deploy hands all its groups over in one
      call; V(runs_nothing), what to say where a host is in no group that runs the application; V(runs_app), whether it
      is in one that does; V(left_out), the hosts that use the host's broker and result store and are not in the run;
      V(operators), the operators' group; paths of the application, V(base), V(etc), V(run), V(log), V(state),
      V(releases), V(shared), V(metrics), V(work), V(memory), V(tmpfiles), V(sudoers) and V(operators_command), and of
      the host, V(conf_d), V(commands) and V(supervisor_socket).
    required: true
"""

EXAMPLES = r"""
- name: Show the release that is deployed
  ansible.builtin.debug:
    msg: "{{ lookup('celery_ops.kit.derived', 'release') }}"
"""

RETURN = r"""
_raw:
  description: The value.
  type: list
"""

from functools import partial
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    APP_GROUPS,
    COMMANDS_DIR,
    CONF_D,
    SUPERVISOR_SOCKET,
    Layout,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils import (
    dead_letters,
    environment,
    logs,
    migration,
    outcome,
    purge,
    report,
    rotation,
    soak,
    tasks,
    uninstall,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.deployment import all_built, release_of_run
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import runs_nothing
from ansible_collections.celery_ops.kit.plugins.plugin_utils.hints import spelled
from ansible_collections.celery_ops.kit.plugins.plugin_utils.programs import goes_at_once, left
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables, migrate_host, schedulers

PATHS = (
    "base", "etc", "run", "log", "state", "releases", "shared", "metrics", "work", "memory", "tmpfiles", "sudoers",
    "operators_command",
)  # fmt: skip
"""What the roles ask the layout for by its name there."""


def path(variables: Variables, name: str) -> str:
    """Return one of the application's directories or files."""
    return str(getattr(Layout(variables["celery_app_name"]), name))


QUESTIONS = {
    "broker_url": environment.broker_url,
    "broker_user": rotation.broker_user,
    "redis_url": environment.redis_url,
    "broker_host": environment.broker_host,
    "result_store_host": partial(environment.service_host, group="result_store"),
    "migrate_host": migrate_host,
    "release": lambda variables: release_of_run(variables) or "current",
    "failures": outcome.failures,
    "lost": lambda variables: outcome.lost(variables["inventory_hostname"]),
    "all_built": all_built,
    "ended_by": outcome.ended_by,
    "summary": outcome.summary,
    "schedulers": schedulers,
    "logs": logs.logs,
    "tasks": tasks.tasks,
    "to_ask": migration.to_ask,
    "purge": purge.purge,
    "dead_letters": dead_letters.dead_letters,
    "uninstall": uninstall.uninstall,
    "soak": soak.soak,
    "report": report.report,
    "runs_nothing": runs_nothing,
    "left": left,
    "at_once": goes_at_once,
    **{name: partial(path, name=name) for name in PATHS},
    "conf_d": lambda _: str(CONF_D),
    "commands": lambda _: str(COMMANDS_DIR),
    "supervisor_socket": lambda _: str(SUPERVISOR_SOCKET),
    "operators": lambda variables: Layout(variables["celery_app_name"]).operators,
    "runs_app": lambda variables: bool(APP_GROUPS.intersection(variables["group_names"])),
    "left_out": lambda known: {
        group: environment.users_left_out(known, group) for group in ("rabbitmq", "result_store")
    },
    "groups": lambda variables: sorted(variables["group_names"]),
}


class LookupModule(LookupBase):
    """Finds the function for a question."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[Any]:
        """Return the answer to each question."""
        known = Variables(variables or {}, self._templar.template)
        return [spelled(QUESTIONS[term](known)) for term in terms]
