"""The release and the environment file that programs and commands run with."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import Layout, Release
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import (
    environment_file,
    environment_of,
    environment_text,
)

# Results that earlier tasks of the run registered.
SOURCE, BUILD, TARGET = "__celery_app_source", "__celery_app_build", "__celery_app_target"


@dataclass(frozen=True)
class Deployment:
    """A release and an environment file of one application."""

    app: str
    release: Release
    environment_file: Path
    of_0_1: bool = False
    """Whether version 0.1 of the kit has built the release, which has its commands elsewhere."""

    @classmethod
    def current(cls, app: str, of_0_1: bool = False) -> Deployment:
        """Return the deployment that is live."""
        return cls(app, Release(Layout(app).current), Layout(app).environment_link, of_0_1)

    @classmethod
    def of_run(cls, variables: Mapping[str, Any]) -> Deployment:
        """Return what this run brings, with the settings that the inventory holds now."""
        app, release_id = variables["celery_app_name"], release_of_run(variables)
        release = Layout(app).release(release_id) if release_id else Release(Layout(app).current)
        return cls(app, release, environment_file(app, environment_text(environment_of(variables))))

    @property
    def hook_environment(self) -> dict[str, str]:
        """What makes the application's command mean this deployment, in a hook."""
        return {"CELERY_OPS_RELEASE": str(self.release.path), "CELERY_OPS_ENV_FILE": str(self.environment_file)}

    def tool(self, name: str) -> str:
        """Return the path of one of the runtime's commands."""
        return str(self.release.command_of_0_1(name) if self.of_0_1 else self.release.command(name))

    def with_environment(self, words: Iterable[str]) -> list[str]:
        """Return `words` run by celery-ops-env, which loads the environment file."""
        return [
            *(self.tool("celery-ops-env"), str(self.environment_file)),
            *("--chdir", str(self.release.app), "--", *words),
        ]

    def as_app(self, words: Iterable[str]) -> list[str]:
        """Return `words` run as the application's user, with its environment; nothing for nothing."""
        first, *rest = [*words] or [""]
        if not first:
            return []
        first = self.tool(first) if first.startswith("celery-ops-") else first
        return [layout.RUNUSER, "-u", self.app, "--", *self.with_environment([first, *rest])]

    def commands_as_app(self, commands: str | Iterable[str]) -> list[list[str]]:
        """Return the words of each of several command lines, or of one; see `as_app`."""
        return [words for line in lines_of(commands) if (words := self.as_app(shlex.split(line)))]

    def guarded(self, name: str, pidfile: Path, words: Iterable[str], drain_timeout: int, *options: str) -> list[str]:
        """Return `words` started by the guard, which keeps a second instance from starting."""
        return [
            *(self.tool(layout.GUARD), "--app", self.app, "--program", name, "--pidfile", str(pidfile)),
            *("--user", self.app, "--env-file", str(self.environment_file), "--chdir", str(self.release.app)),
            *("--drain-timeout", str(drain_timeout), *options, "--", *words),
        ]


def lines_of(commands: str | Iterable[str]) -> list[str]:
    """Return each of several command lines, or the one that there is; none for an empty one."""
    return [line for line in ([commands] if isinstance(commands, str) else commands) if line.strip()]


def release_of_run(variables: Mapping[str, Any]) -> str:
    """Return the release that this run is about: a rollback's target, or what was packed; "" for the current one."""
    return str(variables.get(TARGET, {}).get("release") or variables.get(SOURCE, {}).get("id") or "")


def all_built(variables: Mapping[str, Any]) -> bool:
    """Whether every host of the run has built the release; one that failed, or was lost, has not."""
    found = builds(variables).values()
    return all(build and not build.get("failed") and not build.get("unreachable") for build in found)


def builds(variables: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the build of the release answered, by host of the run; nothing of one that has not come to it."""
    return {host: variables["hostvars"][host].get(BUILD) or {} for host in variables["ansible_play_hosts_all"]}
