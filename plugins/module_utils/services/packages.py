"""Debian packages: installed in one call of apt, recorded, and purged by that record."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import explained
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SYSTEMD
from ansible_collections.celery_ops.kit.plugins.module_utils.services import package_source
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import ON_HOST, RECORD, run
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import candidate_in

APT = ["apt-get", "-q", "-y"]
# apt waits by itself for dpkg's lock alone (DPkg::Lock::Timeout), and not for those of its lists and archives.
LOCKED = re.compile(r"Could not get lock .*")
LOCK_TIMEOUT = 300.0  # seconds
LOCK_POLL = 1.0  # seconds
OUTDATED = re.compile("Unable to locate package|has no installation candidate|maybe run apt-get update")
"""What apt says where its lists are older than a repository that was added, or than a version that was replaced."""
KEEP_CONFIG = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
SELECTED = re.compile(r"Selecting previously \w+ package (\S+?)(?::\w+)?\.$", re.MULTILINE)
"""dpkg's words for a package that this very call brings.

What is on the host after the call and was not before it may be somebody else's, who had locked apt until then.
"""
LISTS, LISTS_MAX_AGE = Path("/var/lib/apt/lists"), 3600.0  # seconds
USERS = {"rabbitmq-server": "rabbitmq", "redis-server": "redis", "redis-sentinel": "redis", "erlang-base": "epmd"}
STOP_TIMEOUT = 60.0  # seconds


class Locked(OperatorError):
    """Another program has locked apt for too long."""


def installed(states: Collection[str] = ("installed",)) -> dict[str, str]:
    """Return the versions of the packages that dpkg has in one of these states, by name."""
    out = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    ).stdout
    return {words[0]: words[1] for words in map(str.split, out.splitlines()) if words[-1] in states}


def read_record() -> list[str]:
    """Return the packages that the kit has installed so far."""
    return json.loads(RECORD.read_text())["packages"] if RECORD.exists() else []


def write_record(packages: list[str]) -> None:
    """Replace the record."""
    RECORD.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_json(RECORD, {"packages": packages})


def listed(packages: list[str]) -> str:
    """Return packages as a diff shows them, one a line."""
    return "".join(f"{name}\n" for name in packages)


def lists_are_stale() -> bool:
    """Whether apt's package lists are missing or older than an hour, or of a time that the clock has not reached."""
    age = time.time() - LISTS.stat().st_mtime if list(LISTS.glob("*_Packages*")) else LISTS_MAX_AGE
    return not 0 <= age < LISTS_MAX_AGE


def install(
    names: Sequence[str], source: Mapping[str, Any], source_name: str = "celery-ops", check: bool = False
) -> dict[str, Any]:
    """Install what is missing and record it; return what the module packages answers. Raises OperatorError."""
    before = installed()
    missing = [name for name in names if name not in before]
    files = package_source.changes(package_source.files(source_name, source))
    pins, diff = source.get("pins", {}), diff_of(missing, files)
    if check or (not missing and not files):
        unlike = package_source.unlike(pins, before)
        return {"changed": bool(missing or files), "packages": missing, "unlike": unlike, "diff": diff}
    package_source.write(files)
    if not missing:
        return {"changed": True, "packages": [], "unlike": package_source.unlike(pins, before), "diff": diff}
    refreshed = bool(files or lists_are_stale() or unlike_candidates(pins, missing))
    failed = refresh_lists() if refreshed else ""
    if other := unlike_candidates(pins, missing):
        each = ", ".join(f"{name}: {version or 'none'} rather than {pins[name]}" for name, version in other.items())
        raise OperatorError(
            f"The package source does not have the wanted version ({each}); nothing was installed. Look: apt-cache "
            f"policy {' '.join(other)}{failed}"
        )
    said: list[str] = []
    removed = installed(("config-files",))  # of these something is left, such as data, that is not the kit's to purge
    try:
        words = [*KEEP_CONFIG, "install", "--no-install-recommends", *missing]
        hint = "Try: apt-get install " + " ".join(missing)
        try:
            apt(words, hint, said.append)
        except OperatorError as why:
            if refreshed or not OUTDATED.search(str(why)):
                raise
            failed = refresh_lists()
            apt(words, hint, said.append)
    except OperatorError as why:
        raise OperatorError(f"{why}{failed}") from None
    finally:  # also of an apt that has failed: a package that does not start is on the host
        selected = set(SELECTED.findall("".join(said)))
        if fresh := selected - removed.keys():
            write_record(sorted({*read_record(), *fresh}))
    new = sorted({*missing, *selected})
    return {
        "changed": True,
        "packages": new,
        "unlike": package_source.unlike(pins, installed()),
        "diff": diff_of(new, files),
    }


def refresh_lists() -> str:
    """Fetch apt's lists; return what to say where that failed. Raises OperatorError where apt is locked.

    apt fetches the other lists where a repository of somebody else's is dead, and fails.
    """
    try:
        apt(["update"], "Look at the sources in /etc/apt, then: apt-get update")
    except Locked:
        raise
    except OperatorError as why:
        return f"\nBefore, {why}"
    return ""


def diff_of(packages: list[str], files: Mapping[Path, str]) -> dict[str, str] | list[dict[str, str]]:
    """Return the packages that come, and the files that are written."""
    texts = [
        {"before": "", "after": text, "before_header": str(path), "after_header": str(path)}
        for path, text in files.items()
    ]
    packages_diff = {"before": "", "after": listed(packages)}
    return [*texts, packages_diff] if texts else packages_diff


def unlike_candidates(pins: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """Return the versions that apt would install, and that are not those of the pins; "" for none."""
    lines = {name: run("apt-cache", "policy", name)[1].splitlines() for name in names if name in pins}
    return package_source.unlike(pins, {name: candidate_in(policy) for name, policy in lines.items()})


def purge(check: bool = False) -> dict[str, Any]:
    """Purge what was recorded, but nothing that something else on the host needs; return what the module answers.

    Raises OperatorError.
    """
    noted = set(read_record())
    ours = noted & installed(ON_HOST).keys()
    kept: set[str] = set()
    while ours:
        plan = apt(["--simulate", "purge", *sorted(ours)], "")
        gone = {line.split()[1] for line in plan.splitlines() if line.startswith(("Remv ", "Purg "))}
        if gone <= ours:
            break
        needed = {name for name in ours if needed_by(name, gone - ours)} or ours
        kept |= needed
        ours -= needed
    if ours and not check:
        stop(ours)
        apt(["purge", *sorted(ours)], "Try: apt-get purge " + " ".join(sorted(ours)))
    if not check:
        RECORD.unlink(missing_ok=True)
    diff = {"before": listed(sorted(ours)), "after": ""}
    return {"changed": bool(noted), "packages": sorted(ours), "kept": sorted(kept), "diff": diff}


def stop(packages: set[str]) -> None:
    """Stop what they run; where a policy-rc.d forbids starts, dpkg's own scripts do not. Raises OperatorError."""
    for name in sorted(packages):
        if (Path("/etc/init.d") / name).exists():
            subprocess.run(["service", name, "stop"], capture_output=True, check=False)
            if SYSTEMD.exists():
                subprocess.run(["systemctl", "reset-failed", name], capture_output=True, check=False)
    # In a container root may not ask /proc which program another user's process is: init scripts then stop nothing, and
    # say that they have. And Erlang's port mapper outlives the broker that started it.
    users = [user for name, user in USERS.items() if name in packages]
    deadline, told = time.monotonic() + STOP_TIMEOUT, set()
    while left := [pid for user in users for pid in processes_of(user)]:
        if time.monotonic() >= deadline:
            raise OperatorError(
                f"Nothing was purged: these processes do not end within {STOP_TIMEOUT:.0f} s: {left}. Look at them "
                f"(ps -fp {left[0]}), end them, and run this again."
            )
        for pid in set(left) - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        told |= set(left)
        time.sleep(0.2)


def processes_of(user: str) -> list[int]:
    """Pids of a user's processes on this host; none for a user that is not there."""
    with contextlib.suppress(KeyError):
        return list(proc.of_this_host(pwd.getpwnam(user).pw_uid))
    return []


def needed_by(name: str, others: set[str]) -> bool:
    """Whether removing `name` would take any of `others` with it."""
    plan = subprocess.run(
        ["apt-get", "--simulate", "purge", name], capture_output=True, text=True, errors="replace"
    ).stdout
    return any(line.startswith(("Remv ", "Purg ")) and line.split()[1] in others for line in plan.splitlines())


def apt(arguments: list[str], hint: str, hear: Callable[[str], object] = str) -> str:
    """Run apt-get, once nobody else does; return its output. Raises OperatorError with its last lines and a hint.

    `hear` gets the output also where it has failed.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        done = subprocess.run(
            [*APT, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        hear(done.stdout)
        if not done.returncode:
            return done.stdout
        locked = LOCKED.search(done.stderr)
        if not locked or time.monotonic() >= deadline:
            break
        time.sleep(LOCK_POLL)
    if locked:
        hint = (
            f"Another program has locked apt for {LOCK_TIMEOUT:.0f} s: {locked[0]}. Wait until it is done (look: "
            "systemctl list-jobs; fuser -v /var/lib/apt/lists/lock /var/lib/dpkg/lock-frontend), then run this again."
        )
    tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
    kind = Locked if locked else OperatorError
    raise kind(explained(f"apt-get {arguments[-1]} ended with {done.returncode}. {hint}\n{tail}"))
