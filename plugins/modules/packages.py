#!/usr/bin/python
"""Install Debian packages and record which ones are new, so that they can be removed again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages and record which ones are new
description:
  - Installs what is missing in one call of apt. Every package that this call installed, dependencies included, is
    recorded on the host; O(state=absent) purges those alone.
  - Waits up to five minutes for apt's and dpkg's locks, which apt-daily and unattended-upgrades hold on a new machine.
options:
  names:
    description: The packages to install.
    type: list
    elements: str
    default: []
  source:
    description:
      - A package source of somebody else's, which apt then knows, with C(uris), C(suite), C(components), the armored
        C(key) and C(pins), the version of each package. Nothing else is taken from it. Empty for the host's own
        sources; what was written before then stays.
      - Installed packages are never upgraded.
    type: dict
    default: {}
  source_name:
    description: What the files of O(source) in C(/etc/apt) are called.
    type: str
    default: celery-ops
  state:
    description: V(present) installs O(names); V(absent) purges everything that is recorded.
    choices: [present, absent]
    default: present
    type: str
attributes:
  check_mode: {support: full, description: "Needs no python3-apt, so it works on a host that has nothing yet."}
  diff_mode: {support: full, description: Shows the packages that come or go.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- packages:
    names: [redis-server]
"""
RETURN = r"""
packages:
  description: What was installed (or purged); in check mode, what would be.
  type: list
  elements: str
  returned: always
unlike:
  description: "Installed packages whose version is not the one of O(source): by name, what is installed."
  type: dict
  returned: state=present
kept:
  description: Recorded packages left in place because something else needs them.
  type: list
  elements: str
  returned: state=absent
"""

import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils import proc
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.services import package_source
from ansible_collections.celery_ops.kit.plugins.module_utils.services.debian import RECORD, run
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_versions import candidate_in
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

APT = ["apt-get", "-q", "-y"]
# apt waits by itself for dpkg's lock alone (DPkg::Lock::Timeout), and not for those of its lists and archives.
LOCKED = re.compile(r"Could not get lock .*")
LOCK_TIMEOUT = 300.0  # seconds
LOCK_POLL = 1.0  # seconds
KEEP_CONFIG = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
LISTS_MAX_AGE = 3600.0  # seconds
USERS = {"rabbitmq-server": "rabbitmq", "redis-server": "redis", "redis-sentinel": "redis", "erlang-base": "epmd"}
STOP_TIMEOUT = 60.0  # seconds


def installed() -> dict[str, str]:
    """Return the versions of the packages that dpkg has installed, by name."""
    out = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {words[0]: words[1] for words in map(str.split, out.splitlines()) if words[-1] == "installed"}


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
    """Whether apt's package lists are missing or older than an hour."""
    lists = list(Path("/var/lib/apt/lists").glob("*_Packages*"))
    return not lists or time.time() - Path("/var/lib/apt/lists").stat().st_mtime > LISTS_MAX_AGE


def install(module: AnsibleModule) -> None:
    """Install what is missing and record it."""
    before, source = installed(), module.params["source"]
    missing = [name for name in module.params["names"] if name not in before]
    files = package_source.changes(package_source.files(module.params["source_name"], source))
    pins, diff = source.get("pins", {}), diff_of(missing, files)
    if module.check_mode or (not missing and not files):
        unlike = package_source.unlike(pins, before)
        module.exit_json(changed=bool(missing or files), packages=missing, unlike=unlike, diff=diff)
    package_source.write(files)
    if not missing:
        module.exit_json(changed=True, packages=[], unlike=package_source.unlike(pins, before), diff=diff)
    if files or lists_are_stale() or unlike_candidates(pins, missing):
        apt(module, ["update"], "Look at the sources in /etc/apt, then: apt-get update")
    if other := unlike_candidates(pins, missing):
        each = ", ".join(f"{name}: {version or 'none'} rather than {pins[name]}" for name, version in other.items())
        module.fail_json(
            msg=f"The package source does not have the wanted version ({each}); nothing was installed. Look: apt-cache "
            f"policy {' '.join(other)}"
        )
    apt(
        module,
        [*KEEP_CONFIG, "install", "--no-install-recommends", *missing],
        "Try: apt-get install " + " ".join(missing),
    )
    after = installed()
    new = sorted(after.keys() - before)
    write_record(sorted({*read_record(), *new}))
    unlike = package_source.unlike(pins, after)
    module.exit_json(changed=True, packages=new, unlike=unlike, diff=diff_of(new, files))


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
    lines = {name: run("apt-cache", "policy", name, LC_ALL="C.UTF-8")[1].splitlines() for name in names if name in pins}
    return package_source.unlike(pins, {name: candidate_in(policy) for name, policy in lines.items()})


def purge(module: AnsibleModule) -> None:
    """Purge what was recorded, but nothing that something else on the host needs."""
    noted = set(read_record())
    ours = noted & installed().keys()
    kept: set[str] = set()
    while ours:
        plan = apt(module, ["--simulate", "purge", *sorted(ours)], "")
        gone = {line.split()[1] for line in plan.splitlines() if line.startswith(("Remv ", "Purg "))}
        if gone <= ours:
            break
        needed = {name for name in ours if needed_by(name, gone - ours)} or ours
        kept |= needed
        ours -= needed
    if ours and not module.check_mode:
        stop(module, ours)
        apt(module, ["purge", *sorted(ours)], "Try: apt-get purge " + " ".join(sorted(ours)))
    if not module.check_mode:
        RECORD.unlink(missing_ok=True)
    diff = {"before": listed(sorted(ours)), "after": ""}
    module.exit_json(changed=bool(noted), packages=sorted(ours), kept=sorted(kept), diff=diff)


def stop(module: AnsibleModule, packages: set[str]) -> None:
    """Stop what the packages run. Where a policy-rc.d forbids starts, dpkg's own scripts stop nothing either."""
    for name in sorted(packages):
        if (Path("/etc/init.d") / name).exists():
            module.run_command(["service", name, "stop"])
            module.run_command(["systemctl", "reset-failed", name]) if Path("/run/systemd/system").exists() else None
    # In a container root may not ask /proc which program another user's process is: init scripts then stop nothing, and
    # say that they have. And Erlang's port mapper outlives the broker that started it.
    users = [user for name, user in USERS.items() if name in packages]
    deadline, told = time.monotonic() + STOP_TIMEOUT, set()
    while left := [pid for user in users for pid in processes_of(user)]:
        if time.monotonic() >= deadline:
            module.fail_json(
                msg=f"Nothing was purged: these processes do not end within {STOP_TIMEOUT:.0f} s: {left}. Look at them "
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
    plan = subprocess.run(["apt-get", "--simulate", "purge", name], capture_output=True, text=True).stdout
    return any(line.startswith(("Remv ", "Purg ")) and line.split()[1] in others for line in plan.splitlines())


def apt(module: AnsibleModule, arguments: list[str], hint: str) -> str:
    """Run apt-get, once nobody else does; fail the module with its last lines and a hint."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        rc, out, err = module.run_command(
            [*APT, *arguments], environ_update={"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        )
        if not rc:
            return out
        locked = LOCKED.search(err)
        if not locked or time.monotonic() >= deadline:
            break
        time.sleep(LOCK_POLL)
    if locked:
        hint = (
            f"Another program has locked apt for {LOCK_TIMEOUT:.0f} s: {locked[0]}. Wait until it is done (look: "
            "systemctl list-jobs; fuser -v /var/lib/apt/lists/lock /var/lib/dpkg/lock-frontend), then run this again."
        )
    tail = "\n".join((out + err).splitlines()[-20:])
    module.fail_json(msg=f"apt-get {arguments[-1]} ended with {rc}. {hint}\n{tail}")


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "dict", "default": {}},
            "source_name": {"type": "str", "default": "celery-ops"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    if module.params["state"] == "present":
        install(module)
    else:
        purge(module)


if __name__ == "__main__":
    main()
