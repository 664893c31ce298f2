"""The application's name, its command and its Python."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import COMMANDS_DIR, PYTHON, SUDOERS_DIR, Layout

GROUPS = Path("/etc/group")
FIRST_USERS_GID = 1000
"""`groupadd --system` takes a number below it, an administrator's `groupadd` and a directory one from there on."""
SYSTEM_COMMANDS = "/usr/sbin:/usr/bin:/sbin:/bin"
OLDEST_PYTHON = (3, 11)


def name(app: str) -> Iterator[str]:
    """The application's user, group and directories are the kit's, or not there yet."""
    layout = Layout(app)
    try:
        account = pwd.getpwnam(app)
    except KeyError:
        if found := contents(layout):
            problem = f"{', '.join(found)} is there already, and not from this kit."
            yield f"celery_app_name is {app}: {problem} Write: celery_app_name: {app}_app"
        yield from group(app)
        return
    if account.pw_dir != str(layout.state):
        yield (
            f"celery_app_name is {app}: a user of that name exists (uid {account.pw_uid}, home {account.pw_dir}). "
            f"Write: celery_app_name: {app}_app, or, if it is meant for the application, type: "
            f"usermod -d {layout.state} {app}"
        )
    elif (theirs := group_name(account.pw_gid)) != app:
        yield (
            f"celery_app_name is {app}: a user of that name exists, in the group {theirs} rather than in one of its "
            f"own, which may read its settings. Write: celery_app_name: {app}_app, or, if the user is meant for the "
            f"application, type: groupadd --system --force {app}; usermod -g {app} {app}"
        )


def contents(layout: Layout) -> list[str]:
    """Return those of the application's directories and files that are there, and not empty."""
    places = (layout.base, layout.etc, layout.run, layout.state, layout.log, layout.tmpfiles)
    # An empty directory may be somewhere to mount a disk.
    return [str(place) for place in places if place.is_file() or any(place.glob("*"))]


def namesakes(app: str) -> list[str]:
    """Return what has the application's name on this host and is somebody else's, which `uninstall` leaves alone.

    Hosts without programs of the application, such as a broker's, are never asked for its name before. The kit makes
    the user first, and removes it last: without it, nothing is the kit's but the audit log, to which each host adds.
    """
    layout = Layout(app)
    found = [each for each in contents(layout) if each != str(layout.log) or not layout.audit_log.exists()]
    try:
        account = pwd.getpwnam(app)
    except KeyError:
        return found
    return [] if account.pw_dir == str(layout.state) else [f"user {app} (home {account.pw_dir})", *found]


def group_name(gid: int) -> str:
    """Return a group's name; the number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def group(app: str) -> Iterator[str]:
    """There is no group of the application's name without its user: `userdel` would remove the group as well."""
    with suppress(KeyError):
        found = grp.getgrnam(app)
        members = f" with {', '.join(found.gr_mem)}" if found.gr_mem else ""
        yield (
            f"celery_app_name is {app}: a group of that name exists (gid {found.gr_gid}{members}), which could read "
            f"the application's passwords, and would be removed with it. Write: celery_app_name: {app}_app, or, if the "
            f"group is needed for nothing, type: groupdel {app}"
        )


def command(wanted: str, app: str, place: Path = COMMANDS_DIR, others: str = SYSTEM_COMMANDS) -> Iterator[str]:
    """The name of the application's command is free, or the command is the kit's."""
    if not wanted:
        return
    path = Path(place, wanted)
    found = str(path) if is_foreign(path, app) else shutil.which(wanted, path=others)
    if found:
        why = "is not the kit's, and stays" if found == str(path) else f"would be hidden by {path}"
        yield f"celery_app_command is {wanted}: {found} {why}. Write: celery_app_command: {wanted}_ops, or '' for none"


def operators_command(app: str, place: Path = COMMANDS_DIR) -> Iterator[str]:
    """The name of the operators' command is free there, or the command is the kit's: sudo lets them call it as root."""
    path = place / Layout(app).operators_command.name
    if is_foreign(path, app):
        yield (
            f"celery_app_name is {app}: {path} is not the kit's, which has a command of that name. Write: "
            f"celery_app_name: {app}_app, or, if nobody needs it there, type: mv {path} {path}.old"
        )


def operators_group(app: str, commands: Path = COMMANDS_DIR, rights: Path = SUDOERS_DIR) -> Iterator[str]:
    """The operators' group is the kit's, or not there yet: its members act as the application, and with its passwords.

    The kit writes command and rights before it makes the group, so without them the group is somebody else's.
    """
    layout = Layout(app)
    rules, wanted = rights / layout.sudoers.name, layout.operators
    if rules.exists() or is_ours(commands / layout.operators_command.name, app):
        return
    with suppress(KeyError):
        found = grp.getgrnam(wanted)
        # Such a one `uninstall` would remove.
        of_system = found.gr_gid < FIRST_USERS_GID and f"\n{wanted}:" in f"\n{GROUPS.read_text(errors='replace')}"
        members = f" with {', '.join(found.gr_mem)}" if found.gr_mem else ""
        fix = (
            f"if the group is needed for nothing, type: groupdel {wanted}"
            if of_system
            else f"if its members are to operate {app}, type: install -D -m 440 /dev/null {rules}"
        )
        yield (
            f"celery_app_name is {app}: a group {wanted} is there (gid {found.gr_gid}{members}), whose members could "
            f"act as the application and read its passwords. Write: celery_app_name: {app}_app, or, {fix}"
        )


def is_foreign(path: Path, app: str) -> bool:
    """Tell whether a command is there and is not one that the kit wrote for the application."""
    return os.path.lexists(path) and not is_ours(path, app)


def is_ours(path: Path, app: str) -> bool:
    """Tell whether the kit wrote this command for the application."""
    return path.is_file() and f"\n# owner: celery-ops {app}\n" in path.read_text(errors="replace")


def python(path: str) -> Iterator[str]:
    """The Python of the virtualenvs is there and new enough. Debian's own is installed where it is missing."""
    if not Path(path).exists() and path == PYTHON:
        return
    fix = f"Write: celery_app_python: {PYTHON}"
    try:
        code = "import sys; print(*sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, errors="replace", timeout=20)
        version = tuple(map(int, done.stdout.split()))
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        yield f"celery_app_python is {path}: {error}. {fix}"
        return
    if not version:
        yield f"celery_app_python is {path}: it is not a Python ({done.stderr.strip()[-200:]}). {fix}"
    elif version < OLDEST_PYTHON:
        is_, wanted = (".".join(map(str, each)) for each in (version, OLDEST_PYTHON))
        yield f"celery_app_python is {path}, which is Python {is_}; it has to be {wanted} or newer. {fix}"
