"""Distribution, root's rights, memory, open files and disks."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    COMMANDS_DIR,
    CONCURRENCY,
    OPEN_FILES,
    SYSTEMD,
)

PROCESS_MEMORY = 24
"""MiB: the least that a worker's pool process takes for itself; the rest of it is shared with its parent."""
PROCESSES_PER_CORE = 64
# By pool: a prefork worker has six pipes a child (measured with Celery 5.7 on RabbitMQ: 35 files with 4 children, 275
# with 44); elsewhere a slot has a socket of the task's and one to the result store.
FILES_PER_SLOT = {"prefork": 6}
OTHER_FILES = 100
WRITTEN = ("/etc", str(COMMANDS_DIR), "/var/lib", "/var/log")
"""Where the kit writes, beside the releases."""
CLOCK_OFF = 300  # seconds; the doctor is stricter


@dataclass(frozen=True)
class Distribution:
    """The host's distribution, from os-release; one that is not released yet has its codename for a version."""

    id: str
    version: str
    name: str

    @classmethod
    def read(cls, release: Path = Path("/etc/os-release")) -> Distribution:
        """Return this host's."""
        pairs = (line.partition("=") for line in release.read_text().splitlines() if "=" in line)
        about = {key: "".join(shlex.split(value)) for key, _, value in pairs}
        version = about.get("VERSION_ID") or about.get("VERSION_CODENAME", "")
        return cls(about.get("ID", ""), version, about.get("PRETTY_NAME", "an unknown system"))

    def is_one_of(self, known: dict[str, list[str]]) -> bool:
        """Whether it is among these versions by distribution; 12 means every point release of it."""
        versions = [str(each) for each in known.get(self.id, [])]
        return self.version in versions or self.version.partition(".")[0] in versions


def distribution(
    runs: Distribution, supported: dict[str, list[str]], untested: dict[str, list[str]], allowed: bool
) -> Iterator[str]:
    """The distribution is one that the kit is tested on, or one that may be untested."""
    if runs.is_one_of(supported) or (allowed and runs.is_one_of(untested)):
        return
    wanted = "; ".join(f"{name.capitalize()} {' and '.join(map(str, each))}" for name, each in supported.items())
    if runs.is_one_of(untested):
        yield f"it runs {runs.name}, not tested by this project. Write: preflight_allow_untested: true, or use {wanted}"
    else:
        yield f"it runs {runs.name}; the kit supports {wanted}. Use a host with one of these."


def root() -> Iterator[str]:
    """Tasks run as root."""
    if os.geteuid():
        user = pwd.getpwuid(os.geteuid()).pw_name
        line = "ansible-playbook playbooks/site.yml --become --ask-become-pass"
        yield f"tasks run as {user}, and they need root. Write: ansible_become: true (for the host), or type: {line}"


def service_manager() -> str:
    """Return systemd, or sysvinit for Debian's init scripts, as Ansible's own facts name them."""
    return "systemd" if SYSTEMD.exists() and shutil.which("systemctl") else "sysvinit"


def memory_mib() -> int:
    """Return the host's memory, as Ansible's own facts have it."""
    return int(Path("/proc/meminfo").read_text().split()[1]) // 1024


def slots_of(program: dict[str, Any]) -> int:
    """Return how many tasks a worker program runs at a time, at most."""
    return int(str(program.get("autoscale", program.get("concurrency", CONCURRENCY))).partition(",")[0])


def memory(programs: list[dict[str, Any]], overlap: bool, store: int) -> Iterator[str]:
    """The workers' processes fit into memory and are not out of proportion to the cores."""
    total = memory_mib()
    count = sum(slots_of(each) for each in programs if each.get("pool", "prefork") == "prefork")
    needed = count * PROCESS_MEMORY * (2 if overlap else 1)
    cores = os.cpu_count() or 1
    if needed > total:
        twice = ", two generations side by side during a deploy" if overlap else ""
        fix = f"concurrency: {max(1, total // PROCESS_MEMORY // 4)}" + (
            ", or celery_worker_handover: rolling" if overlap else ""
        )
        yield (
            f"celery_worker_programs have a concurrency of {count} in all, which takes {needed} MiB at the least "
            f"({PROCESS_MEMORY} MiB each{twice}); the host has {total} MiB. Write: {fix}"
        )
    elif count > PROCESSES_PER_CORE * cores:
        yield (
            f"celery_worker_programs have a concurrency of {count} in all, and the host has {cores} cores "
            f"(more than {PROCESSES_PER_CORE} processes each). Write: concurrency: {4 * cores}, or pool: threads"
        )
    if store > total * 0.8:
        fix = f"result_store_max_memory: {total // 4}"
        yield f"result_store_max_memory is {store}, and the host has {total} MiB. Write: {fix}"


def open_files(programs: list[dict[str, Any]], limit: int) -> Iterator[str]:
    """Each worker program may open as many files as its slots need."""
    for each in programs:
        slots, pool = slots_of(each), str(each.get("pool", "prefork"))
        a_slot = FILES_PER_SLOT.get(pool, 2)
        if slots * a_slot + OTHER_FILES > limit:
            files, fits = slots * a_slot + OTHER_FILES, max(1, (limit - OTHER_FILES) // a_slot)
            yield (
                f"celery_worker_programs, {each.get('name')}: {slots} slots of the pool {pool} open {files} files, "
                f"and a process on this host may open {limit} (ulimit -Hn). Write: concurrency: {fits}, or raise the "
                f"limit: LimitNOFILE={OPEN_FILES} for the service (systemctl edit supervisor), in Docker --ulimit "
                f"nofile={OPEN_FILES} for the container"
            )


def most_open_files(supervisords: Iterable[int]) -> int:
    """Return how many files a program may open: the hard limit of these supervisords, more where root may raise it."""
    wanted = (OPEN_FILES, OPEN_FILES)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for pid in supervisords:
        with contextlib.suppress(OSError):
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        return OPEN_FILES
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, wanted)  # of this module alone
        return OPEN_FILES
    return hard


def disk(least: int, directories: tuple[str, ...] = ("/srv", "/var/lib", "/var/log")) -> Iterator[str]:
    """There is room for releases, data and logs."""
    seen = set()
    for directory in map(Path, directories):
        place = next(path for path in [directory, *directory.parents] if path.exists())
        free = shutil.disk_usage(place).free // 2**20
        if free < least and place.stat().st_dev not in seen:
            seen.add(place.stat().st_dev)
            fix = f"Make room (see: du -xh -d2 {place}), or write: preflight_disk_free: {free // 2}"
            yield f"{directory} has {free} MiB free, and preflight_disk_free wants {least}. {fix}"


def clock(control: float) -> Iterator[str]:
    """The host's clock is about the control node's: by one that is off, apt and TLS refuse what is valid."""
    here = time.time()
    if abs(here - control) > CLOCK_OFF:
        ours, theirs = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at)) for at in (here, control))
        yield (
            f"The clock of {os.uname().nodename} says {ours}, the control node's {theirs}. apt and TLS refuse what is "
            "not valid by it, and schedules run at other times. On the wrong one, type: timedatectl set-ntp true"
        )


def mounted(app: str, directory: str = "/srv", written: tuple[str, ...] = WRITTEN) -> Iterator[str]:
    """Programs can be written and run where the releases go, and the rest be written where it goes."""
    home, told = f"{directory}/{app}", set()
    for path, flag, option, wanted, what in (
        (home, os.ST_NOEXEC, "noexec", "exec", "the releases are to run from"),
        (home, os.ST_RDONLY, "ro", "rw", "the releases are to run from"),
        *((path, os.ST_RDONLY, "ro", "rw", "the kit writes into") for path in written),
    ):
        mount = next(place for place in [Path(path), *Path(path).parents] if place.exists())
        is_so = os.statvfs(mount).f_flag & flag
        while not mount.is_mount():
            mount = mount.parent
        if is_so and (mount, option) not in told:
            told.add((mount, option))
            fix = (
                f"Write {wanted} instead of {option} for it in /etc/fstab, and type: mount -o remount,{wanted} {mount}"
            )
            yield f"{mount} is mounted with {option}, and {what} {path}. {fix}"
