"""The machine: disks, clock, updates, memory, and what Redis wants of the kernel."""

from __future__ import annotations

from ansible_collections.celery_ops.kit.plugins.module_utils.disk import FULL_SHARE, Disk
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, fail, fine, judge, skip, warn
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import APP_GROUPS

GB = 10**9
SERVICES = ("supervisor", "rabbitmq-server", "redis-server")


def places(disks: list[Disk]) -> str:
    """Return the paths to look at."""
    return " ".join(one.path for one in disks)


@check("disk-space", "host")
def space(facts: Facts) -> Finding:
    """There is room wherever the application, broker and store write."""
    full = [one for one in facts.host.disks if one.space >= 85]
    evidence = ", ".join(f"{one.path} {one.space:.0f} %" for one in full or facts.host.disks)
    level = "fail" if any(one.space >= FULL_SHARE for one in full) else "warn"
    fix = f"du -xh -d2 {places(full)} | sort -h | tail; journalctl --vacuum-size=100M; apt-get clean"
    return judge(bool(full), evidence, fix, level)


@check("disk-inodes", "host")
def inodes(facts: Facts) -> Finding:
    """There are inodes left there."""
    full = [one for one in facts.host.disks if one.inodes >= 85]
    level = "fail" if any(one.inodes >= FULL_SHARE for one in full) else "warn"
    evidence = ", ".join(f"{one.path} {one.inodes:.0f} %" for one in full) or "enough"
    return judge(bool(full), evidence, f"du -x --inodes -d2 {places(full)} | sort -n | tail", level)


@check("disk-writable", "host")
def writable(facts: Facts) -> Finding:
    """No file system there is read-only, as after an error of the disk."""
    bad = [one for one in facts.host.disks if one.readonly]
    evidence = ", ".join(one.path for one in bad) or "all writable"
    return judge(
        bool(bad), evidence, f"dmesg | tail -n 50; then: mount -o remount,rw $(findmnt -no TARGET -T {places(bad[:1])})"
    )


@check("log-growth", "host")
def growth(facts: Facts) -> Finding:
    """No log grows without end."""
    large = [one for one in facts.host.logs if one.size > GB]
    whole = sum(one.size for one in facts.host.logs)
    evidence = ", ".join(f"{one.path} {one.size / GB:.1f} GB" for one in large) or f"{whole / 10**6:.0f} MB in all"
    fix = "find what it says so often; Supervisor rotates at 20 MB: stdout_logfile_maxbytes; then: truncate -s 0 FILE"
    return judge(bool(large), evidence, fix, "warn")


@check("log-rotation", "supervisor")
def rotation(facts: Facts) -> Finding:
    """Supervisor rotates the log of each program."""
    without = [
        one.name for one in facts.supervisor.programs if one.conf and "\nstdout_logfile_maxbytes=0" in f"\n{one.conf}"
    ]
    return judge(bool(without), ", ".join(without) or "all", "ansible-playbook playbooks/deploy.yml", "warn")


@check("clock-synchronised", "host")
def synchronised(facts: Facts) -> Finding:
    """The clock follows the world's: schedules, ETAs and certificates need it."""
    if facts.host.container:
        return skip("a container has its host's clock")
    if facts.host.synchronised is None:
        return warn("unknown", "apt-get install systemd-timesyncd")
    fix = "apt-get install systemd-timesyncd; timedatectl set-ntp true"
    return judge(not facts.host.synchronised, "synchronised" if facts.host.synchronised else "not synchronised", fix)


@check("reboot-pending", "host")
def reboot(facts: Facts) -> Finding:
    """No update waits for a reboot."""
    found = ", ".join(sorted(set(facts.host.reboot)))
    return judge(
        bool(found),
        f"asked for by {found}" if found else "none",
        "drain first: supervisorctl stop all; then: reboot",
        "warn",
    )


@check("needrestart", "host")
def needrestart(facts: Facts) -> Finding:
    """needrestart does not restart the services by itself in the middle of an upgrade."""
    if facts.host.needrestart in ("", "l", "i"):
        return fine(f"mode {facts.host.needrestart or 'not installed'}")
    open_ones = [name for name in SERVICES if name.partition("-")[0] not in facts.host.spared]
    names = "|".join(SERVICES)
    fix = f"in /etc/needrestart/conf.d/celery-ops.conf: $nrconf{{override_rc}}{{qr(^({names}))}} = 0;"
    return judge(
        bool(open_ones), f"it restarts {', '.join(open_ones)} by itself" if open_ones else "excepted", fix, "warn"
    )


@check("upgrades-reboot", "host")
def upgrades_reboot(facts: Facts) -> Finding:
    """unattended-upgrades does not reboot the host whenever it likes."""
    if not facts.host.apt:
        return fine("unattended-upgrades is not on")
    on = facts.host.apt.get("Unattended-Upgrade::Automatic-Reboot", "false").lower() in ("true", "1", "yes")
    when = facts.host.apt.get("Unattended-Upgrade::Automatic-Reboot-Time", "now")
    fix = 'in /etc/apt/apt.conf.d/52local: Unattended-Upgrade::Automatic-Reboot "false";'
    return judge(on, f"it reboots at {when}" if on else "no automatic reboot", fix, "warn")


@check("upgrades-services", "host")
def upgrades_services(facts: Facts) -> Finding:
    """On a broker of several nodes unattended-upgrades does not restart all of them in one night."""
    if not facts.host.apt or "rabbitmq" not in facts.host.groups or facts.wanted.nodes < 2:
        return fine("not for this host")
    held = facts.host.apt.get("Unattended-Upgrade::Package-Blacklist::", "")
    fix = 'in /etc/apt/apt.conf.d/52local: Unattended-Upgrade::Package-Blacklist {"rabbitmq-server"; "erlang-";};'
    return judge(
        "rabbitmq" not in held, "held back" if "rabbitmq" in held else "it upgrades RabbitMQ by itself", fix, "warn"
    )


@check("memory-available", "host")
def memory(facts: Facts) -> Finding:
    """There is memory left."""
    whole, left = facts.host.memory["MemTotal"], facts.host.memory["MemAvailable"]
    share = 100 * left / whole
    level = "fail" if share < 3 else "warn"
    return judge(
        share < 10,
        f"{share:.0f} % available",
        "ps aux --sort=-rss | head; fewer slots: concurrency of a program",
        level,
    )


@check("memory-swap", "host")
def swap(facts: Facts) -> Finding:
    """Nothing that works is swapped out."""
    whole, free = facts.host.memory.get("SwapTotal", 0), facts.host.memory.get("SwapFree", 0)
    share = 100 * (whole - free) / whole if whole else 0
    if facts.host.container:
        return skip("a container has its host's swap")
    return judge(
        share > 50, f"{share:.0f} % of {whole // 1024} MiB used", "sysctl vm.swappiness=10; and give it memory", "warn"
    )


@check("memory-oom", "host")
def oom(facts: Facts) -> Finding:
    """The kernel has killed nothing for want of memory since boot."""
    if facts.host.container:
        return skip("a container's counter is its host's")
    kills = facts.host.oom_kills
    return judge(
        kills > 0, f"{kills} since boot", "journalctl -k -g 'Out of memory'; fewer slots, or max_memory", "warn"
    )


@check("redis-overcommit", "store")
def overcommit(facts: Facts) -> Finding:
    """Redis may fork to rewrite its file, though it then seems to need its memory twice."""
    if facts.host.container:
        return skip("a container has its host's kernel")
    value = facts.host.overcommit
    fix = "echo 'vm.overcommit_memory = 1' > /etc/sysctl.d/60-redis.conf; sysctl --system"
    return judge(value != 1, f"vm.overcommit_memory is {value}", fix, "warn")


@check("redis-huge-pages", "store")
def huge_pages(facts: Facts) -> Finding:
    """Huge pages do not make each fork of Redis slow."""
    chosen = facts.host.huge_pages or "not there"
    fix = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (at each boot: transparent_hugepage=madvise)"
    return judge(chosen == "always", f"transparent_hugepage is {chosen}", fix, "warn")


@check("supervisor-open", "host")
def supervisor_port(facts: Facts) -> Finding:
    """Nothing listens at the port that Supervisor's manual uses on other than loopback."""
    found = [
        address
        for address, port in facts.host.listeners
        if port == 9001 and not (address.startswith("127.") or address == "::1")
    ]
    return judge(
        bool(found), f"port 9001 on {', '.join(found)}" if found else "no", "remove [inet_http_server]", "warn"
    )


@check("debian-supported", "host")
def debian(facts: Facts) -> Finding:
    """Debian still fixes faults of this version."""
    version = facts.host.debian
    if not version.isdigit():
        return skip("not a release of Debian")
    return judge(
        int(version) < 12,
        f"Debian {version}",
        "upgrade to Debian 12 or 13; the broker first moves: docs/fleet.md",
        "fail",
    )


@check("groups", "host")
def groups(facts: Facts) -> Finding:
    """The host has a part in the system."""
    names = ", ".join(sorted(facts.host.groups))
    if not facts.host.groups:
        return fail("it is in no group", "write it into worker, scheduler, web, rabbitmq or result_store")
    return fine(names if APP_GROUPS & facts.host.groups else f"{names}; no program of the application")
