"""Build a release on a host, and find out whether one that was built is still whole."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import (
    DIRECTORY,
    OWN_DIRECTORY,
    RUNUSER,
    UMASK,
    Release,
)
from ansible_collections.celery_ops.kit.plugins.module_utils.listeners import install_listener, put
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import (
    RequirementsError,
    included,
    names_local,
)

GRACE = 10.0  # seconds for a command that was told to end
NICER = 5  # a build lets the tasks that run go first
INSTALL_TIMEOUT = 1800.0  # seconds
COMMANDS_RAN = ".commands-ran"
"""In a release: its build commands were run in it."""
FILES = ".files.json"
"""In a release: what its source holds, by name: a file's size, or a link's target."""
KEPT_TIME = 0
"""Every packed file's modification time: one that has another was changed on the host."""
FAULT_OF_HOST = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Cannot allocate memory|MemoryError"
    r"|Too many open files|Resource temporarily unavailable|^runuser: |^celery-ops-env: "
    r"|Temporary failure in name resolution|Name or service not known|Network is unreachable|No route to host"
    r"|Connection (refused|reset|timed out)|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError"
    r"|CERTIFICATE_VERIFY_FAILED|Retrying \(Retry\(|Max retries exceeded"
    r"|HTTP error (401|403|407|5\d\d)|\b(401|403|407|5\d\d) (Client |Server )?Error",
    re.IGNORECASE | re.MULTILINE,
)
"""In the output of a command: what no release is to blame for."""
LAST_LINES = 20
CAUSE = re.compile(r"\berror:|ERROR: |The conflict is caused by|^\s*\w*(Error|Exception): ", re.IGNORECASE)
"""In the output of a command: a line that says why it failed, however much follows."""


MISSING = (
    (r"Python\.h: No such file", "Python's header", "python3-dev"),
    (
        r"'[^'\n]*\b(gcc|cc|g\+\+|c\+\+)'[^\n]*No such file|No such file[^\n]*'[^'\n]*\b(gcc|cc)'",
        "A compiler",
        "python3-dev",
    ),
    (r"libpq-fe\.h: No such file|pg_config executable not found", "PostgreSQL's header", "libpq-dev"),
    (
        r"mysql_config: not found|mysql\.h: No such file|Can not find valid pkg-config name",
        "MySQL's header",
        "pkg-config, default-libmysqlclient-dev",
    ),
    (r"ffi\.h: No such file", "libffi's header", "libffi-dev"),
    (r"openssl/\S+\.h: No such file", "OpenSSL's header", "libssl-dev"),
    (r"libxml/\S+\.h: No such file|xml2-config|libxslt development", "libxml2's header", "libxml2-dev, libxslt1-dev"),
    (r"(lber|ldap)\.h: No such file", "OpenLDAP's header", "libldap-dev, libsasl2-dev"),
    (r"jpeglib\.h: No such file|could not be found for jpeg", "libjpeg's header", "libjpeg-dev, zlib1g-dev"),
    (r"curl-config|curl/curl\.h: No such file", "libcurl's header", "libcurl4-openssl-dev, libssl-dev"),
)
"""What a compiler says, what is missing, and the packages that bring it, beside build-essential."""
KNOWN = [
    *((pattern, f"{what} is missing on the host.", f"build-essential, {names}") for pattern, what, names in MISSING),
    (r"can't find Rust compiler|the Rust package manager, is not", "A Rust compiler is missing on the host.", "cargo"),
    (r"Cannot find command 'git'", "A requirement is in a git repository, and git is missing on the host.", "git"),
    (r"failed to find libmagic", "libmagic is missing on the host.", "libmagic1"),
    (
        r"PermissionError: .*'([^/'][^']*|/\S*/(releases|current)/[^']*)'|Read-only file system: '/srv/"
        r"|readonly database|unable to open database file",
        "A release is read-only. What the application writes belongs to a path of celery_app_shared (kept in "
        "/srv/<app>/shared across releases), or to /var/lib/<app>.",
        "",
    ),
]
"""In the output of a command: what is known to be behind it, and the packages to write."""


class ReleaseError(Exception):
    """What the operator reads; `release_fault` when what the release itself holds or did is the cause."""

    def __init__(self, message: str, release_fault: bool = False) -> None:
        super().__init__(message)
        self.release_fault = release_fault


class Releases(Protocol):
    """What is needed of the module's releases: their folders and notes."""

    base: Path
    folder: Path

    def note(self, release: str) -> dict[str, Any]:
        """What release.json says."""

    def write_note(self, release: str, **changes: Any) -> None:
        """Change release.json."""


def point(link: Path, target: str) -> bool:
    """Make `link` point at `target` in one step; say whether it did not before."""
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
    return True


def run(
    command: list[str],
    what: str,
    hint: str,
    environment: dict[str, str],
    timeout: float | None,
    of_release: bool = False,
    directory: Path | None = None,
    too_slow: str = "see how busy the host is: uptime",
) -> str:
    """Run a command; ReleaseError with why it failed, out of what it said, when it does.

    `of_release` says whether it runs what the release brings, so that failing is the release's fault, unless what it
    said tells of the host or the network.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**without_unpack_place(), **environment},
            process_group=0,
            cwd=directory,
        )
    except OSError as error:
        raise ReleaseError(f"{what} failed. {hint}\n{command[0]}: {error.strerror}") from None
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        end_group(process)
        raise ReleaseError(f"{what} did not end within {timeout:.0f} s; {too_slow}") from expired
    except BaseException:  # we are to end
        end_group(process)
        raise
    if process.returncode:
        said = (out + err).strip()
        killed = process.returncode < 0 or process.returncode == 137
        fault = of_release and not killed and not FAULT_OF_HOST.search(said)
        text = "\n".join([f"{what} failed. {hint}", *known_causes(said), reason(said)])
        raise ReleaseError(masked(text, environment.values()), fault)
    return out


def known_causes(said: str) -> Iterator[str]:
    """What is known to be behind the output of a command that failed, and what to write."""
    for pattern, text, packages in KNOWN:
        if re.search(pattern, said):
            write = f" Write: celery_app_packages: [{packages}], then type: ansible-playbook playbooks/site.yml"
            yield text + (write if packages else "")


def reason(said: str) -> str:
    """Why a command failed: the last lines of what it said, and before them what a compiler or pip's resolver said."""
    lines = said.splitlines()
    tail = len(lines) - LAST_LINES
    shown = {number for number, line in enumerate(lines[: max(0, tail)]) if CAUSE.search(line)}
    for number in [number for number in shown if "The conflict is caused by" in lines[number]]:
        shown |= set(range(number, min(number + LAST_LINES, tail)))
    return "\n".join([*(lines[number] for number in sorted(shown)[:LAST_LINES]), *lines[max(0, tail) :]])


def without_unpack_place() -> dict[str, str]:
    """Our environment for others: /run, where Ansible unpacked this module, is no place for what pip builds."""
    return {name: value for name, value in os.environ.items() if (name, value) != ("TMPDIR", "/run")}


def end_group(leader: subprocess.Popen[str]) -> None:
    """End a command with all that it has started: pip starts others, and runuser is only the parent of its command."""
    deadline = time.monotonic() + GRACE
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, number)
            while number == signal.SIGTERM and time.monotonic() < deadline:
                leader.poll()
                os.killpg(leader.pid, 0)
                time.sleep(0.05)
    leader.wait()


def masked(text: str, values: Iterable[str]) -> str:
    """`text` without what may be a secret in these values of an environment: of an address the password, else all.

    Paths stay, and what is too short to be one.
    """
    hidden: set[str] = set()
    for value in values:
        if logins := re.findall(r"//([^/@\s]+)@", value):
            passwords = {login.partition(":")[2] or login for login in logins}
            hidden |= {*logins, *passwords, *map(unquote, passwords)}
        elif "://" not in value and not value.startswith(("/", "~")):
            hidden.add(value)
    for secret in sorted((piece for piece in hidden if len(piece) >= 4), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def of_host(error: OSError, base: Path) -> ReleaseError:
    """What the operator reads where the host is to blame: a disk that is full, a folder that can't be written."""
    place = error.filename or base
    hint = f"Look: df -h {base}; df -i {base}; ls -ld {base}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"Make room, then run this again: df -h {base}; du -xh --max-depth 1 {base}/releases {base}/venvs"
    return ReleaseError(f"{place}: {error.strerror}. {hint}")


def build(releases: Releases, options: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Build a release that is not there yet, and anew what is damaged of one that is; nothing that runs is touched.

    Without the archive, where it is needed, the answer is `needs_archive`. A good release stays good.
    """
    release = releases.folder / options["id"]
    status = releases.note(options["id"]).get("status", "")
    proven = status in ("built", "good")
    files = list(damaged_files(release)) if proven else []
    damage = [*files, *damaged_virtualenv(release / "venv")] if proven else []
    if proven and not damage and (check_mode or is_inspected(releases, options)):
        changed = not check_mode and install_listener(releases.base, wheel_of(release))
        return {"changed": changed, "inspect": report_of(releases, options)}
    warnings = [f"release {options['id']} is damaged and is built anew: {'; '.join(damage)}"] if damage else []
    if check_mode:
        return {"changed": True, "inspect": report_of(releases, options), "warnings": warnings}
    if not options["archive"] and (files or not proven):
        return {"changed": True, "needs_archive": True}
    os.nice(NICER)
    os.umask(UMASK)
    forget_logins(releases)
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
    return {"changed": True, "inspect": report, "warnings": warnings + list(unsafe(report))}


def report_of(releases: Releases, options: dict[str, Any]) -> dict[str, Any]:
    """What celery-ops-inspect said of the application in this release; empty where it never ran."""
    return releases.note(options["id"]).get("inspect") or {}


def inspected_with(options: dict[str, Any]) -> list[str]:
    """What an application is, it may be by its environment: another one is inspected anew."""
    return [Path(options["environment_file"]).name, options["celery_module"]]


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


def forget_logins(releases: Releases) -> None:
    """Remove the login from the addresses that were noted before 0.3: everybody may read them."""
    for path in releases.folder.glob("*/release.json"):
        noted = releases.note(path.parent.name)
        source = re.sub(r"(https?://)[^/@\s]+@", r"\1", noted.get("source", ""))
        if noted and source != noted.get("source", ""):
            releases.write_note(path.parent.name, source=source)


def make(releases: Releases, release: Path, options: dict[str, Any], proven: bool) -> None:
    """Unpack, make the virtualenv, inspect the application, install the listener. Raises ReleaseError."""
    if options["archive"]:
        unpack(Path(options["archive"]), release, options["user"])
    share(releases, release, options["user"])
    if not proven:
        releases.write_note(
            options["id"], status="building", reason="", source=options["source"], commit=options["commit"],
            requirements=options["requirements"], built_at=round(time.time(), 3),
        )  # fmt: skip
    wheel = wheel_of(release)
    before = (release / "venv").resolve() if (release / "venv").is_symlink() else None
    venv = virtualenv(releases, release, wheel, options)
    point(release / "venv", os.path.relpath(venv, release))
    if before and before != venv:
        # The same damaged virtualenv may be other releases' as well.
        for other in releases.folder.glob("*/venv"):
            if other.resolve() == before and stem_of(before) == stem_of(venv):
                point(other, os.path.relpath(venv, release))
    run_commands(release, options)
    # Best effort: a file that does not compile is nobody's fault until something imports it.
    compiling = [str(venv / "bin/python"), "-m", "compileall", "-qq", str(Release(release).source)]
    with subprocess.Popen(compiling, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        report = inspect(release, options)
    releases.write_note(options["id"], inspect=report, inspected_with=inspected_with(options))
    install_listener(releases.base, wheel)


def unpack(archive: Path, release: Path, user: str) -> None:
    """Bring the source and the runtime's wheel to what the archive holds.

    File by file: a program may run from there.
    """
    fresh = release / ".unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(fresh)], "Unpacking", "", {}, 300)
    source = Release(fresh).source
    files, top = files_of(source), release / source.name
    for path in (source / name for name in files):
        if not path.is_symlink() and not path.stat().st_mode & 0o004:  # a key, or alike
            os.chown(path, 0, pwd.getpwnam(user).pw_gid)
    if top.is_dir():
        for name in files:
            if not _is_whole(top / name, files[name]):
                put(source / name, top / name)
    else:
        put(source, top)
        (release / COMMANDS_RAN).unlink(missing_ok=True)
    if (fresh / "app").is_symlink():
        point(release / "app", str((fresh / "app").readlink()))
    for path in [*fresh.glob("*.whl"), *fresh.glob("*.txt")]:
        path.replace(release / path.name)
    (fresh / FILES).write_text(json.dumps(files))
    (fresh / FILES).replace(release / FILES)
    shutil.rmtree(fresh)
    archive.unlink(missing_ok=True)


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
    (release / FILES).write_text(json.dumps({name: at for name, at in before.items() if _is_whole(top / name, at)}))
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


def files_of(folder: Path) -> dict[str, int | str]:
    """Sizes of packed files and targets of links below a folder, by name."""
    found: dict[str, int | str] = {}
    for root, folders, names in os.walk(folder):
        here = Path(root)
        for path in (here / name for name in [*names, *folders]):
            if path.is_symlink():
                found[str(path.relative_to(folder))] = str(path.readlink())
            elif path.is_file() and int(path.stat().st_mtime) == KEPT_TIME:
                found[str(path.relative_to(folder))] = path.stat().st_size
    return found


def _is_whole(path: Path, expected: int | str) -> bool:
    try:
        if isinstance(expected, str):
            return str(path.readlink()) == expected
        found = path.lstat()
    except OSError:
        return False
    return found.st_size == expected and int(found.st_mtime) == KEPT_TIME and path.is_file() and not path.is_symlink()


def wheel_of(release: Path) -> Path:
    """The runtime's wheel in a release."""
    return next(release.glob("*.whl"), release / "runtime.whl")


def damaged_files(release: Path) -> Iterator[str]:
    """What is wrong with the files of a release. One built before 0.3 has no list of them."""
    if not wheel_of(release).exists():
        yield "its wheel of the runtime is missing"
    top = Release(release).source
    if not (release / "app").is_dir():
        yield "its app/ is missing"
    elif (release / FILES).exists():
        files = json.loads((release / FILES).read_text())
        changed = [name for name, expected in files.items() if not _is_whole(top / name, expected)]
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            yield f"{top.name}/{changed[0]}{more} is missing or was changed"


def damaged_virtualenv(venv: Path) -> Iterator[str]:
    """What is wrong with a virtualenv: cheap enough to ask before each deploy."""
    if not (venv / ".complete").exists():
        yield "its virtualenv is missing or incomplete"
        return
    if not is_readable(venv):
        yield f"{venv.resolve()}: the application's user can't read it"
        return
    for site in venv.glob("lib/python3*/site-packages"):
        missing = [name for record in site.glob("*.dist-info/RECORD") for name in _missing(site, record)]
        if missing:
            more = f" and {len(missing) - 1} more" if missing[1:] else ""
            yield f"{venv.resolve()}: {missing[0]}{more} is missing or empty"
            return
    try:
        run([str(venv / "bin/python"), "-I", "-c", "import celery, celery_ops.guard"], "The virtualenv", "", {}, 30)
    except ReleaseError as error:
        yield f"{venv.resolve()}: {str(error).splitlines()[-1]}"


def is_readable(venv: Path) -> bool:
    """Whether the application's user can use a virtualenv: the kit once made them under the login's umask."""
    paths = [venv, venv / "bin", *venv.glob("bin/celery*"), *venv.glob("lib/python*/site-packages/celery_ops")]
    return all(path.stat().st_mode & 0o005 == 0o005 for path in paths)


def _missing(site: Path, record: Path) -> Iterator[str]:
    """Files of an installed package that are gone, or empty and were not: what a full or broken disk leaves."""
    with record.open(newline="", encoding="utf-8", errors="replace") as lines:
        for row in csv.reader(lines):
            if len(row) < 3 or row[0].endswith(".pyc"):
                continue
            try:
                size = os.stat(f"{site}/{row[0]}").st_size  # noqa: PTH116 thousands of them
            except OSError:
                yield row[0]
            else:
                if size == 0 and row[2] not in ("", "0"):
                    yield row[0]


def requirement_files(release: Path, name: str) -> list[Path]:
    """The files that pip is given: made on the control node, or the application's own."""
    made = [path for path in (release / "requirements.txt", release / "project.txt") if path.exists()]
    own = release / "app" / name
    if not made and own.suffix == ".toml":  # packed before 0.4
        made = [release / "requirements.txt"]
        made[0].write_text("\n".join(tomllib.loads(own.read_text())["project"]["dependencies"]) + "\n")
    return made or [own]


def requirement_texts(release: Path, name: str) -> dict[str, str]:
    """The texts of all requirement files, and of those that they include. Raises ReleaseError."""
    found: dict[str, str] = {}
    try:
        for path in requirement_files(release, name):
            root = Release(release).source if path.is_relative_to(release / "app") else release
            found |= included(root, str(path.resolve().relative_to(root.resolve())))
    except RequirementsError as error:
        raise ReleaseError(str(error), release_fault=True) from None
    return found


def virtualenv(releases: Releases, release: Path, wheel: Path, options: dict[str, Any]) -> Path:
    """The virtualenv for these requirements, runtime and Python; made if it is not there, or not whole.

    One that something of the source is installed into is the release's own. A damaged one stays where it is while a
    release or a program uses it: the new one has a name beside.
    """
    texts = requirement_texts(release, options["requirements"])
    python = options["python"]
    version = run([python, "-VV"], f"{python} -VV", "Set celery_app_python to a Python 3.11 or newer.", {}, 30)
    common = [*texts.items(), hashlib.sha256(wheel.read_bytes()).hexdigest(), version, os.uname().machine]
    local = names_local(texts)
    identity, kind = json.dumps([*common, release.name] if local else common), json.dumps([*common, *projects(release)])
    stem, kind = (hashlib.sha256(text.encode()).hexdigest()[:12] for text in (identity, kind))
    folder = releases.base / "venvs"
    folder.mkdir(exist_ok=True)
    folder.chmod(DIRECTORY)
    there = [path for path in sorted(folder.iterdir()) if stem_of(path) == stem]
    for venv in there:
        if not list(damaged_virtualenv(venv)):
            return venv
    linked = {link.resolve() for link in releases.folder.glob("*/venv")}
    for venv in there:
        if venv.resolve() not in linked and not runs_from(venv):
            shutil.rmtree(venv, ignore_errors=True)
    names = [stem, *(f"{stem}-{number}" for number in range(1, 1 + len(there)))]
    venv = next(path for path in (folder / name for name in names) if not path.exists())
    try:
        if local and (old := alike(folder, kind)):
            clone(old, venv)
        install(venv, release, wheel, options)
    except ReleaseError:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    (venv / ".complete").write_text(kind)
    return venv


def alike(folder: Path, kind: str) -> Path | None:
    """The newest virtualenv of this kind that is whole."""
    known = sorted(folder.glob("*/.complete"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = (path.parent for path in known if path.read_text() == kind)
    return next((venv for venv in found if not list(damaged_virtualenv(venv))), None)


def projects(release: Path) -> list[str]:
    """The texts that say what the projects of a source require."""
    top = Release(release).source
    names = [name for name in files_of(top) if name.rpartition("/")[2] in ("pyproject.toml", "setup.py", "setup.cfg")]
    return [(top / name).read_text(errors="replace") for name in sorted(names) if (top / name).is_file()]


def clone(old: Path, new: Path) -> None:
    """Make a virtualenv out of another release's with the same requirements: pip then installs the projects alone.

    Its files are the same ones on the disk; pip never writes into a file, it makes a new one.
    """
    run(["cp", "-al", str(old), str(new)], "Copying the virtualenv", "", {}, INSTALL_TIMEOUT)
    (new / ".complete").unlink()
    for path in [*(new / "bin").iterdir(), new / "pyvenv.cfg"]:
        text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if str(old).encode() in text:
            fresh = path.with_name(f".{path.name}.new")
            fresh.write_bytes(text.replace(str(old).encode(), str(new).encode()))
            fresh.chmod(path.stat().st_mode & 0o777)
            fresh.replace(path)


def stem_of(venv: Path) -> str:
    """What all virtualenvs for the same content begin with."""
    return venv.name.partition("-")[0]


def install(venv: Path, release: Path, wheel: Path, options: dict[str, Any]) -> None:
    """Make a virtualenv and install into it. Raises ReleaseError."""
    environment = {
        **{key: str(value) for key, value in json.loads(options["install_environment"] or "{}").items()},
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "GIT_TERMINAL_PROMPT": "0",
    }
    if not venv.exists():
        run(
            [options["python"], "-m", "venv", str(venv)], "Making the virtualenv",
            "Debian's python3-venv has to be installed: apt-get install python3-venv", {}, INSTALL_TIMEOUT,
        )  # fmt: skip
    # The script, in the application's directory: with -m, a module there would be imported instead of Python's own.
    pip = [str(venv / "bin/pip"), "install", "--progress-bar", "off"]
    for path in requirement_files(release, options["requirements"]):
        run(
            [*pip, *(["--no-deps"] if path.name == "project.txt" else []), "-r", str(path)],
            f"Installing {options['requirements']}",
            "Fix the file, or reach the index: celery_app_install_environment (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY).",
            environment, INSTALL_TIMEOUT, of_release=True, directory=release / "app",
        )  # fmt: skip
    if not (venv / "bin/celery").exists():
        raise ReleaseError(
            f"{options['requirements']} does not bring celery. Add it, at the version you want.", release_fault=True
        )
    run([*pip, "--no-deps", "--no-index", str(wheel)], "Installing the kit's runtime", "", environment, INSTALL_TIMEOUT)


def runs_from(venv: Path) -> bool:
    """Whether a process runs from a virtualenv: its command line or its environment names it."""
    name = f"{venv.resolve()}/".encode()
    for process in Path("/proc").glob("[0-9]*"):
        for file in ("cmdline", "environ"):
            try:
                if name in (process / file).read_bytes().replace(b"\0", b"/"):
                    return True
            except OSError:
                continue
    return False


def inspect(release: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Import the application as its own user, with the environment that it will have; return what it reports.

    Raises ReleaseError where it can't be imported, or can't work. A runtime of before 0.4 can't report.
    """
    files = Release(release)
    if not files.command("celery-ops-inspect").exists():
        return {}
    command = [
        RUNUSER, "-u", options["user"], "--", str(files.command("celery-ops-env")), options["environment_file"],
        "--chdir", str(files.app), "--", str(files.venv / "bin/python"), "-B", str(files.command("celery-ops-inspect")),
        "-A", options["celery_module"],
    ]  # fmt: skip
    try:
        out = run(
            command, f"Importing {options['celery_module']} (release {release.name})",
            "Nothing that runs was touched. Fix the source and deploy again.", {}, options["import_timeout"],
            of_release=True, too_slow="see how busy the host is (uptime). If the application takes its time, write: "
            f"celery_worker_ready_timeout: {5 * options['import_timeout']}",
        )  # fmt: skip
    except ReleaseError as error:
        where = where_it_is(release, options) if "No module named" in str(error) else ""
        raise ReleaseError(f"{error}{where}", error.release_fault) from None
    report = json.loads(out.splitlines()[-1])
    if refused := report["refused"]:
        lines = [f"{one['problem']}. Write: {one['write']}" for one in refused]
        raise ReleaseError(
            f"{options['celery_module']} (release {release.name}) can't work as it is. "
            + "\n".join(["Nothing that runs was touched. Correct it and deploy again.", *lines]),
            release_fault=True,
        )
    return report


def where_it_is(release: Path, options: dict[str, Any]) -> str:
    """Where the application's package is, one directory below, and what to write; empty where it isn't there."""
    name = re.split(r"[.:]", options["celery_module"])[0]
    app = (release / "app").resolve()
    if list(app.glob(name)) + list(app.glob(f"{name}.py")):
        return ""
    found = sorted({path.parent for pattern in (f"*/{name}", f"*/{name}.py") for path in app.glob(pattern)})
    if not found:
        return ""
    if app / "src" in found:
        write = f"`-e .` into {options['requirements']}, or celery_app_environment: {{PYTHONPATH: src}}"
    else:
        write = f"celery_app_directory: {found[0].relative_to(Release(release).source.resolve())}"
    return f"\n{name} is in {found[0].name}/ of the source, where Python does not look. Write: {write}"


def prune_virtualenvs(base: Path, linked: set[Path], used: str) -> None:
    """Remove virtualenvs that no release links to, `used` does not name and no process runs from."""
    for venv in (base / "venvs").iterdir():
        if venv.resolve() not in linked and venv.name not in used and not runs_from(venv):
            shutil.rmtree(venv)
