"""Build a release on a host, and find out whether one that was built is still whole."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.build_command import ReleaseError, run
from ansible_collections.celery_ops.kit.plugins.module_utils.files import point, write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    CONCURRENCY,
    OWN_DIRECTORY,
    RUNUSER,
    UMASK,
    Layout,
    Release,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.listeners import install_listener
from ansible_collections.celery_ops.kit.plugins.module_utils.release_files import (
    COMMANDS_RAN,
    FILES,
    damaged_files,
    files_of,
    is_whole,
    package_of,
    unpack,
    write_commands,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.virtualenvs import (
    INSTALL_TIMEOUT,
    Releases,
    damaged_virtualenv,
    has_lost_its_python,
    stem_of,
    virtualenv,
)

MISSING = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)")
NICER = 5  # a build lets the tasks that run go first


def of_host(error: OSError, base: Path) -> ReleaseError:
    """What the operator reads where the host is to blame: a disk that is full, a directory that can't be written."""
    place = error.filename or base
    hint = f"Look: df -h {base}; df -i {base}; ls -ld {base}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"Make room, then run this again: df -h {base}; du -xh --max-depth 1 {base}/releases {base}/venvs"
    return ReleaseError(f"{place}: {error.strerror}. {hint}")


def build(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Build a release that is not there yet, and anew what is damaged of one that is; nothing that runs is touched.

    Without the archive, where it is needed, the answer is `needs_archive`. A good release stays good.
    """
    release = releases.directory / options["id"]
    status = releases.note(options["id"]).get("status", "")
    proven = status in ("built", "good")
    files = list(damaged_files(release)) if proven else []
    damage = [*files, *damaged_virtualenv(release / "venv")] if proven else []
    if proven and not damage and (check_mode or is_inspected(releases, options)):
        refuse(report_of(releases, options), options)
        changed = not check_mode and install_listener(releases.base, package_of(release))
        return {"changed": changed, "inspect": report_of(releases, options)}
    warnings = [f"release {options['id']} is damaged and is rebuilt: {'; '.join(damage)}"] if damage else []
    if check_mode:
        return {"changed": True, "inspect": report_of(releases, options), "warnings": warnings}
    if not options["archive"] and (files or not proven):
        return {"changed": True, "needs_archive": True}
    os.nice(NICER)
    os.umask(UMASK)
    try:
        make(releases, release, options, proven)
    except OSError as error:
        raise of_host(error, releases.base) from error
    except ReleaseError as error:
        # What was good once is not to blame, and what the host is to blame for is simply built again.
        error.release_fault = error.release_fault and not proven
        if not proven:
            status = "failed" if error.release_fault else "building"
            releases.write_note(options["id"], status=status, reason=str(error))
        raise
    releases.write_note(options["id"], status=status if proven else "built", reason="")
    report = report_of(releases, options)
    warnings += [*unsafe(report), *doubtful(report), *ignored(report, options)]
    return {"changed": True, "inspect": report, "warnings": warnings}


def rebuild_others(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the virtualenvs anew of the other good releases whose Python is gone: a rollback may go to one of them."""
    changed, warnings = False, []
    for name in releases.good():
        release = releases.directory / name
        if name == options["id"] or not has_lost_its_python((release / "venv").resolve()):
            continue
        if check_mode:
            changed = True
            continue
        os.umask(UMASK)
        requirements = releases.note(name).get("requirements") or options["requirements"]
        try:
            venv = virtualenv(releases, release, {**options, "requirements": requirements})
        except (ReleaseError, OSError) as error:
            if getattr(error, "release_fault", False):  # else the next deploy tries again
                releases.write_note(name, status="failed", reason=str(error))
            warnings.append(
                f"Release {name}, a rollback's target, was built with a Python that is gone, and can't be rebuilt: "
                f"{error}"
            )
            continue
        changed = True
        point(release / "venv", os.path.relpath(venv, release))
        warnings.append(f"Release {name}, a rollback's target, was built with a Python that is gone: now with another")
    return {"changed": changed, "warnings": warnings}


def report_of(releases: Releases, options: dict[str, Any]) -> dict[str, Any]:
    """What celery-ops-inspect said of the application in this release; empty where it never ran."""
    return releases.note(options["id"]).get("inspect") or {}


def inspected_with(options: dict[str, Any]) -> list[Any]:
    """What an application is, it may be by its environment, and so are options: with others it is inspected anew."""
    return [Path(options["environment_file"]).name, options["celery_module"], *options["command_lines"]]


def is_inspected(releases: Releases, options: dict[str, Any]) -> bool:
    """Whether the application was inspected with this environment."""
    return releases.note(options["id"]).get("inspected_with") == inspected_with(options)


def unsafe(report: dict[str, Any]) -> Iterator[str]:
    """A warning that names the settings that can lose tasks, and the lines to write; none where all are safe."""
    if found := report.get("unsafe"):
        settings = ", ".join(f"{one['setting']} is {one['value']!r}" for one in found)
        lines = "; ".join(one["write"] for one in found)
        yield (
            f"The application's settings can lose tasks: {settings}. Write, after its own configuration: {lines} "
            "(or celery_ops.apply(app), which sets all that the application does not set itself)"
        )


def doubtful(report: dict[str, Any]) -> Iterator[str]:
    """A warning for each thing that most likely is a mistake, and may work."""
    return (f"{one['problem']}. Write: {one['write']}" for one in report.get("doubtful", []))


def ignored(report: dict[str, Any], options: dict[str, Any]) -> Iterator[str]:
    """A warning for each of the application's own settings that the inventory's takes the place of."""
    found, own = list(report.get("ignored", [])), report.get("concurrency")
    if own and own != CONCURRENCY and options["default_concurrency"]:
        write = f"celery_worker_programs: [{{name: default, concurrency: {own}}}]"
        found.append({"setting": "worker_concurrency", "value": own, "used": CONCURRENCY, "write": write})
    for one in found:
        yield (
            f"The application's {one['setting']} is {one['value']}, and {one['used']} is used in its place. For the "
            f"application's own, write: {one['write']}"
        )


def unfit(report: dict[str, Any], options: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What the programs of the inventory can't do with this application, and what to write."""
    pool = report.get("pool") or "prefork"
    if pool not in ("prefork", "processes") and "prefork" in options["pools"]:
        yield {
            "problem": f"worker_pool is {pool} in its settings, and Celery takes that in place of the pool prefork, "
            "the default of celery_worker_programs",
            "write": f"celery_worker_programs: [{{name: default, pool: {pool}, concurrency: ...}}], or no worker_pool",
        }
    known = report.get("only_queues") or options["queues"]
    for queue in [queue for queue in options["queues"] if queue not in known]:
        yield {
            "problem": f"celery_worker_programs names the queue {queue}, and with task_create_missing_queues = False "
            f"the application has those of task_queues only ({', '.join(known)})",
            "write": f"Queue({queue!r}) in task_queues, or another queue in celery_worker_programs",
        }
    for missing in sorted({*report.get("pools_missing", ())} & {*options["pools"]}):
        yield {
            "problem": f"a program of celery_worker_programs has pool {missing}, and the package {missing} is missing",
            "write": f"{missing} (into {options['requirements']}), or another pool",
        }
    for one in report.get("unusable_options", ()):
        yield {
            "problem": f"celery {one['command']} does not take the options of {one['about']} ({one['problem']})",
            "write": f"options that it takes (celery {one['command']} --help)",
        }
    if options["verify_clients"] and not report.get("shows_certificate", True):
        yield {
            "problem": "celery_app_tls_verify_clients is true, and the application shows the broker no certificate",
            "write": "celery_ops.apply(app), or app.conf.broker_use_ssl = {**(app.conf.broker_use_ssl or {}), "
            f'"certfile": "{Layout(options["app"]).tls_client}"}}',
        }
    if options["has_scheduler"] and (lacks := report.get("scheduler_lacks")):
        named = report.get("scheduler_of", "beat_scheduler")
        yield {
            "problem": f"{named} has the scheduler {report['scheduler']}, which can't be loaded ({lacks})",
            "write": f"package.module:Class of one, its package into {options['requirements']}, or "
            "celery_scheduler_enabled: false",
        }


def refuse(report: dict[str, Any], options: dict[str, Any]) -> None:
    """Raise ReleaseError where the application can't work as it is installed, or as the inventory runs it."""
    of_release, of_inventory = report.get("refused", []), list(unfit(report, options))
    if refused := [*of_release, *of_inventory]:
        lines = [f"{one['problem']}. Write: {one['write']}" for one in refused]
        raise ReleaseError(
            f"{options['celery_module']} (release {options['id']}) can't work as it is. "
            + "\n".join(["Nothing that runs was touched. Correct it and deploy again.", *lines]),
            release_fault=bool(of_release),
        )


def make(releases: Releases, release: Path, options: dict[str, Any], proven: bool) -> None:
    """Unpack, make the virtualenv, inspect the application, install the listener. Raises ReleaseError."""
    files = Release(release)
    if options["archive"]:
        unpack(Path(options["archive"]), release, options["user"])
    share(releases, release, options["user"])
    if not proven:
        releases.write_note(
            options["id"], status="building", reason="", source=options["source"], commit=options["commit"],
            requirements=options["requirements"], built_at=round(time.time(), 3),
        )  # fmt: skip
    before = (release / "venv").resolve() if (release / "venv").is_symlink() else None
    venv = virtualenv(releases, release, options)
    point(release / "venv", os.path.relpath(venv, release))
    if before and before != venv:
        # The same damaged virtualenv may be other releases' as well.
        for other in releases.directory.glob("*/venv"):
            if other.resolve() == before and stem_of(before) == stem_of(venv):
                point(other, os.path.relpath(venv, release))
    write_commands(release)
    run_commands(release, options)
    # Best effort: a file that does not compile is nobody's fault until something imports it.
    compiling = [str(venv / "bin/python"), "-m", "compileall", "-qq", *map(str, (files.source, files.runtime))]
    with subprocess.Popen(compiling, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        report = inspect(release, options)
    releases.write_note(options["id"], inspect=report, inspected_with=inspected_with(options))
    install_listener(releases.base, package_of(release))


def share(releases: Releases, release: Path, user: str) -> None:
    """Make the directories of what a release has links to in shared/: its own, for the application to write."""
    account, shared = pwd.getpwnam(user), releases.base / "shared"
    files = json.loads((release / FILES).read_text()) if (release / FILES).exists() else {}
    for target in (Path(target) for target in files.values() if isinstance(target, str)):
        if target.is_relative_to(shared) and target != shared:
            directory = target.parent if target.suffix else target
            for path in [*reversed(directory.relative_to(shared).parents), directory.relative_to(shared)]:
                if not (shared / path).exists():
                    (shared / path).mkdir(mode=OWN_DIRECTORY, parents=True)
                    os.chown(shared / path, account.pw_uid, account.pw_gid)


def run_commands(release: Path, options: dict[str, Any]) -> None:
    """Run the build commands as the application's user, who owns the source meanwhile. Raises ReleaseError."""
    if not options["commands"] or (release / COMMANDS_RAN).exists():
        return
    top, account = Release(release).source, pwd.getpwnam(options["user"])
    before = files_of(top)
    own(top, account.pw_uid, account.pw_gid, account.pw_gid)
    try:
        for words in options["commands"]:
            run(
                words, f"celery_app_build_commands (release {release.name})",
                f"Nothing that runs was touched. Correct it, then deploy again: {shlex.join(words)}", {},
                INSTALL_TIMEOUT, of_release=True,
            )  # fmt: skip
    finally:
        own(top, 0, 0, account.pw_gid)
    # What a command has changed is as it is to be.
    unchanged = {name: at for name, at in before.items() if is_whole(top / name, at)}
    write_atomically(release / FILES, json.dumps(unchanged))
    (release / COMMANDS_RAN).touch()


def own(top: Path, user: int, group: int, of_private: int) -> None:
    """Give a tree to a user and a group; what others may not read, to the group `of_private`.

    By file descriptors: a process of the application may move things about meanwhile.
    """
    os.chown(top, user, group)
    for _, directories, names, at in os.fwalk(top):
        for name in [*directories, *names]:
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            private = not stat.S_ISLNK(mode) and not mode & 0o004
            os.chown(name, user, of_private if private else group, dir_fd=at, follow_symlinks=False)


def inspect(release: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Import the application as its own user, with the environment that it will have; return what it reports.

    Raises ReleaseError where it can't be imported, or can't work.
    """
    files = Release(release)
    command = [
        RUNUSER, "-u", options["user"], "--", str(files.command("celery-ops-env")), options["environment_file"],
        "--chdir", str(files.app), "--", str(files.venv / "bin/python"), "-B", str(files.command("celery-ops-inspect")),
        "-A", options["celery_module"],
    ]  # fmt: skip
    programs = {"CELERY_OPS_COMMAND_LINES": json.dumps(options["command_lines"])}
    try:
        out = run(
            command, f"Importing {options['celery_module']} (release {release.name})",
            "Nothing that runs was touched. Fix the source and deploy again.", programs, options["import_timeout"],
            of_release=True, too_slow="see how busy the host is (uptime). If the application takes its time, write: "
            f"celery_worker_ready_timeout: {5 * options['import_timeout']}",
        )  # fmt: skip
    except ReleaseError as error:
        missing = MISSING.findall(str(error))
        where = where_it_is(missing[-1], release, options) if missing else ""
        raise ReleaseError(f"{error}{where}", error.release_fault) from None
    if not out.strip():
        raise ReleaseError(
            f"{options['celery_module']} (release {release.name}) ends the process when it is imported, without an "
            "exception (os._exit). Nothing that runs was touched. Fix the source and deploy again.", release_fault=True,
        )  # fmt: skip
    report = json.loads(out.splitlines()[-1])
    refuse(report, options)
    return report


def where_it_is(name: str, release: Path, options: dict[str, Any]) -> str:
    """Where a module is, in the application's directory or one below, and what to write; empty where it isn't there."""
    app = (release / "app").resolve()
    full, name = name, name.partition(".")[0]
    if full.endswith(".py") and full in options["celery_module"]:
        return f"\n{full} is a file, not a module. Write: celery_app_module: {full.removesuffix('.py')}"
    if list(app.glob(name)) + list(app.glob(f"{name}.py")):
        if full != name or not [*app.glob(f"{name}.py"), *app.glob(f"{name}/*.py")]:
            return ""
        return (
            f"\n{name} is in the directory of the application, where the command celery looks only while it imports "
            f"{options['celery_module']}. Write: celery_app_environment: {{PYTHONPATH: .}}, or `import {name}` into "
            f"{options['celery_module'].partition(':')[0]}"
        )
    found = sorted({path.parent for pattern in (f"*/{name}", f"*/{name}.py") for path in app.glob(pattern)})
    if not found:
        return ""
    if app / "src" in found:
        file = options["requirements"]
        is_plain = not file.endswith((".toml", ".lock"))
        install = f"`-e .` into {file}" if is_plain else "[build-system] into pyproject.toml, to have it installed"
        write = f"{install}, or celery_app_environment: {{PYTHONPATH: src}}"
    else:
        write = f"celery_app_directory: {found[0].relative_to(Release(release).source.resolve())}"
    return f"\n{name} is in {found[0].name}/ of the source, where Python does not look. Write: {write}"
