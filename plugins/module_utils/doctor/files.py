"""Permissions of what is secret or runs, secrets on the control node, certificates."""

from __future__ import annotations

from ansible_collections.celery_ops.kit.plugins.module_utils.doctor import Finding, check, judge, skip
from ansible_collections.celery_ops.kit.plugins.module_utils.doctor.facts import Facts
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    CERTIFICATE_DAYS,
    COMMANDS_DIR,
    CONF_D,
    ERLANG_COOKIE,
    KEYS,
    Layout,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.services import redis

SITE = "ansible-playbook playbooks/site.yml"
LENGTH = 20
"""Characters that a password has at least; the kit's have 40."""
DAYS = 365
"""The age at which a password should be rotated."""


def _mode(facts: Facts, paths: list[str], forbidden: int, level: str = "fail", owner: str = "") -> Finding:
    """Judge the modes, and the owner, of those of these files that are there."""
    seen = [facts.host.files[path] for path in paths if path in facts.host.files]
    if not seen:
        return skip("not here")
    wrong = [one for one in seen if one.mode & forbidden or (owner and one.owner != owner)]
    evidence = ", ".join(f"{one.path} {one.mode:04o} {one.owner}" for one in wrong or seen[:3])
    right = {0o077: "go=", 0o007: "o=", 0o022: "go-w", 0o027: "g-w,o="}.get(forbidden, "o=")
    fix = f"chmod {right} {' '.join(one.path for one in wrong)}" + (f"; chown {owner} ..." if owner else "")
    return judge(bool(wrong), evidence, fix, level)


@check("files-environment", "host")
def environment(facts: Facts) -> Finding:
    """The environment files, which hold passwords, are for root and the application."""
    layout = Layout(facts.app)
    paths = [path for path in facts.host.files if path.startswith(f"{layout.etc}/env")]
    return _mode(facts, paths, 0o027, owner="root")


@check("files-etc", "host")
def etc(facts: Facts) -> Finding:
    """So is their directory."""
    return _mode(facts, [str(Layout(facts.app).etc)], 0o007)


@check("files-records", "host")
def records(facts: Facts) -> Finding:
    """The deployments' records are root's."""
    return _mode(facts, [str(Layout(facts.app).deployments)], 0o077, owner="root")


@check("files-logs", "host")
def logs(facts: Facts) -> Finding:
    """Logs, which may hold tasks' arguments, are not for everybody."""
    return _mode(facts, [str(Layout(facts.app).log)], 0o007, "warn")


@check("files-conf-d", "host")
def conf_d(facts: Facts) -> Finding:
    """Nobody but root writes what Supervisor, which is root, starts."""
    paths = [path for path in facts.host.files if path.startswith(str(CONF_D.parent))]
    return _mode(facts, paths, 0o022, owner="root")


@check("files-release", "host")
def release(facts: Facts) -> Finding:
    """The application can't change its own code."""
    layout = Layout(facts.app)
    return _mode(facts, [str(layout.base), str(layout.releases), str(layout.current)], 0o022, owner="root")


@check("files-command", "host")
def command(facts: Facts) -> Finding:
    """Nobody but root changes the command that root calls."""
    return _mode(facts, [str(COMMANDS_DIR / facts.app)], 0o022, owner="root")


@check("files-erlang-cookie", "host")
def erlang_cookie(facts: Facts) -> Finding:
    """Erlang's cookie, which gives all rights at the broker, is RabbitMQ's alone."""
    return _mode(facts, [str(ERLANG_COOKIE)], 0o077, owner="rabbitmq")


@check("files-redis", "host")
def redis_files(facts: Facts) -> Finding:
    """So are Redis' users, and the kit's password there."""
    return _mode(facts, [str(redis.ADMIN_KEY), redis.ACL_FILE], 0o007)


@check("files-keys", "host")
def keys(facts: Facts) -> Finding:
    """Keys of certificates are not for everybody."""
    return _mode(facts, [*map(str, KEYS), str(Layout(facts.app).tls_client)], 0o007)


@check("files-secrets-in-conf", "host")
def secrets_in_conf(facts: Facts) -> Finding:
    """No file that everybody may read has a URL with a password."""
    found = facts.host.secrets_in
    fix = "celery_app_secrets: {NAME: ...} instead of the command line or environment= of a program, then deploy"
    return judge(bool(found), ", ".join(found) or "none", fix)


@check("certificates", "host")
def certificates(facts: Facts) -> Finding:
    """No certificate ends within a month."""
    if not facts.host.certificates:
        return skip("no certificate on this host")
    ends = {path: days for path, days in facts.host.certificates.items() if days < CERTIFICATE_DAYS}
    level = "fail" if any(days < 7 for days in ends.values()) else "warn"
    shown = ends or facts.host.certificates
    evidence = ", ".join(f"{path} ends in {days:.0f} days" for path, days in shown.items())
    return judge(bool(ends), evidence, f"{SITE} (your own, in celery_app_tls_directory: renew them there first)", level)


@check("secrets-mode", "control")
def secrets_mode(facts: Facts) -> Finding:
    """Generated secrets on the control node are for one user alone."""
    open_ones = [one.name for one in facts.control.secrets if one.mode & 0o077]
    bad = bool(open_ones) or bool(facts.control.mode & 0o077 and facts.control.secrets)
    evidence = f"{facts.control.directory} {facts.control.mode:04o}" + (
        f", open: {', '.join(open_ones)}" if open_ones else ""
    )
    return judge(bad, evidence, f"chmod -R go= {facts.control.directory}")


@check("secrets-length", "control")
def secrets_length(facts: Facts) -> Finding:
    """Passwords are long."""
    short = [f"{one.name} ({one.length})" for one in facts.control.secrets if one.length < LENGTH]
    fix = "ansible-playbook playbooks/rotate_secrets.yml; your own: at least 20 characters"
    return judge(bool(short), ", ".join(short) or f"{len(facts.control.secrets)} of {LENGTH} characters or more", fix)


@check("secrets-age", "control")
def secrets_age(facts: Facts) -> Finding:
    """Passwords are rotated once a year."""
    old = [f"{one.name} ({one.days:.0f} days)" for one in facts.control.secrets if one.days > DAYS]
    return judge(
        bool(old),
        ", ".join(old) or "none is older than a year",
        "ansible-playbook playbooks/rotate_secrets.yml",
        "warn",
    )


@check("secrets-rotation", "control")
def secrets_rotation(facts: Facts) -> Finding:
    """No rotation was left half done: the old passwords would still be valid."""
    half = facts.control.rotation
    return judge(
        half,
        "one was interrupted" if half else "none under way",
        "ansible-playbook playbooks/rotate_secrets.yml",
        "warn",
    )


@check("secrets-in-git", "control")
def secrets_in_git(facts: Facts) -> Finding:
    """git does not take the secrets."""
    bad = facts.control.in_git and bool(facts.control.secrets)
    evidence = f"{facts.control.directory} is in a git work tree and not ignored" if bad else "not in git"
    return judge(
        bad, evidence, f"echo '*' > {facts.control.directory}/.gitignore; and if they were pushed: rotate_secrets.yml"
    )


@check("clock-skew", "control")
def skew(facts: Facts) -> Finding:
    """The host's clock is the control node's."""
    ahead = facts.control.skew
    if ahead is None:
        return skip("not asked")
    fix = "on both: timedatectl; apt-get install systemd-timesyncd, or start the one that is there"
    level = "fail" if abs(ahead) > 30 else "warn"
    return judge(abs(ahead) > 2, f"{ahead:+.1f} s from the control node's clock", fix, level)
