"""Supervisor is Debian's, and reads the directory of the kit's programs."""

from __future__ import annotations

import configparser
import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import CONF_D, SUPERVISOR_SOCKET, SUPERVISORD_CONF
from ansible_collections.celery_ops.kit.plugins.module_utils.services.supervisor import configuration, patterns

DEBIANS_SUPERVISORD = Path("/usr/bin/supervisord")


@dataclass(frozen=True)
class Supervisord:
    """A running supervisord of root's, with its command line."""

    pid: int
    words: tuple[str, ...]
    directory: str

    @property
    def program(self) -> str:
        """The path of supervisord itself, which Python runs."""
        return next((word for word in self.words[1:4] if Path(word).name == "supervisord"), "")

    @property
    def conf(self) -> str:
        """The configuration file that it was given; empty for one that it looks for."""
        for at, word in enumerate(self.words):
            found = re.fullmatch(r"(?:-c|--configuration)=?(.*)", word)
            if found and (found[1] or self.words[at + 1 :]):
                return str(Path(self.directory, found[1] or self.words[at + 1]))
        return ""

    def __str__(self) -> str:
        return f"{self.program} with {self.conf or 'a configuration that it found'} (pid {self.pid})"

    @property
    def is_debians(self) -> bool:
        """Whether it is the service of Debian's package, which reads the kit's programs."""
        return Path(self.program).resolve() == DEBIANS_SUPERVISORD and self.conf in ("", str(SUPERVISORD_CONF))


def supervisords() -> Iterator[Supervisord]:
    """Yield those that root runs on this host, without those of containers on it."""
    for pid in proc.of_this_host(uid=0):
        with contextlib.suppress(OSError):
            process = Path("/proc", str(pid))
            found = Supervisord(pid, tuple(proc.words(pid)), str((process / "cwd").readlink()))
            if found.program and (process / "exe").readlink().name.startswith(("python", "pypy")):
                yield found


def problems(running: Iterable[Supervisord], conf: Path) -> Iterator[str]:
    """Supervisor is Debian's, or there is none yet; and its configuration includes the programs' directory."""
    others = [each for each in running if not each.is_debians]
    if others and len(others) == len(list(running)):
        start = "systemctl enable --now supervisor" if DEBIANS_SUPERVISORD.exists() else "apt-get install supervisor"
        yield (
            f"a Supervisor that is not Debian's runs here: {others[0]}. The kit works with the package's, which reads "
            f"{SUPERVISORD_CONF}. Stop the other one for good and write its programs into {CONF_D}, or, to have both "
            f"side by side, type first: {start}"
        )
    if not conf.exists():
        return
    try:
        parser = configuration(text_of(conf))
    except configparser.Error as error:
        yield f"{conf} can't be read: {' '.join(str(error).split())}. Write it as Supervisor's manual says."
        return
    if not any(Path(CONF_D, "some.conf").match(pattern) for pattern in patterns(parser, str(conf.parent))):
        yield f"{conf} does not include {CONF_D}. Write in its section [include]: files = {CONF_D}/*.conf"
    if not parser.get("unix_http_server", "file", fallback=""):
        line = f"file={SUPERVISOR_SOCKET}"
        yield f"{conf} gives supervisord no socket. Write in its section [unix_http_server]: {line}"
