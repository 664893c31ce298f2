"""Build a release on a host, and find out whether one that was built is still whole."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from ansible.module_utils.listeners import install_listener, put

GRACE = 10.0  # seconds for a command that was told to end
NICER = 5  # a build lets the tasks that run go first
IMPORT_TIMEOUT = 60.0  # seconds
INSTALL_TIMEOUT = 1800.0  # seconds
FILES = ".files.json"
"""In a release: what app/ holds, by name: a file's size, or a link's target."""
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
) -> str:
    """Run a command; ReleaseError with its last lines when it fails.

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
        )
    except OSError as error:
        raise ReleaseError(f"{what} failed. {hint}\n{command[0]}: {error.strerror}") from None
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as expired:
        end_group(process)
        raise ReleaseError(f"{what} did not end within {timeout:.0f} s; see how busy the host is: uptime") from expired
    except BaseException:  # we are to end
        end_group(process)
        raise
    if process.returncode:
        said = (out + err).strip()
        tail = "\n".join(said.splitlines()[-20:])
        killed = process.returncode < 0 or process.returncode == 137
        fault = of_release and not killed and not FAULT_OF_HOST.search(said)
        raise ReleaseError(masked(f"{what} failed. {hint}\n{tail}", environment.values()), fault)
    return out


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
    os.umask(0o022)
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
        unpack(Path(options["archive"]), release)
    if not proven:
        releases.write_note(
            options["id"], status="building", reason="", source=options["source"], commit=options["commit"],
            requirements=options["requirements"], built_at=round(time.time(), 3),
        )  # fmt: skip
    wheel = wheel_of(release)
    before = (release / "venv").resolve() if (release / "venv").is_symlink() else None
    venv = virtualenv(releases, release / "app", wheel, options)
    point(release / "venv", os.path.relpath(venv, release))
    if before and before != venv:
        # The same damaged virtualenv may be other releases' as well.
        for other in releases.folder.glob("*/venv"):
            if other.resolve() == before and stem_of(before) == stem_of(venv):
                point(other, os.path.relpath(venv, release))
    # Best effort: a file that does not compile is nobody's fault until something imports it.
    compiling = [str(venv / "bin/python"), "-m", "compileall", "-qq", str(release / "app")]
    with subprocess.Popen(compiling, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        report = inspect(release, options)
    releases.write_note(options["id"], inspect=report, inspected_with=inspected_with(options))
    install_listener(releases.base, wheel)


def unpack(archive: Path, release: Path) -> None:
    """Bring app/ and the runtime's wheel to what the archive holds, file by file: a program may run from there."""
    fresh = release / ".unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run(["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(fresh)], "Unpacking", "", {}, 300)
    files = files_of(fresh / "app")
    if (release / "app").is_dir():
        for name in files:
            if not _is_whole(release / "app" / name, files[name]):
                put(fresh / "app" / name, release / "app" / name)
    else:
        put(fresh / "app", release / "app")
    for wheel in fresh.glob("*.whl"):
        wheel.replace(release / wheel.name)
    (fresh / FILES).write_text(json.dumps(files))
    (fresh / FILES).replace(release / FILES)
    shutil.rmtree(fresh)
    archive.unlink(missing_ok=True)


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
    if not (release / "app").is_dir():
        yield "its app/ is missing"
    elif (release / FILES).exists():
        files = json.loads((release / FILES).read_text())
        changed = [name for name, expected in files.items() if not _is_whole(release / "app" / name, expected)]
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            yield f"app/{changed[0]}{more} is missing or was changed"


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


def requirement_lines(app: Path, name: str) -> str:
    """What to install, as a requirements file's text; a pyproject.toml's dependencies are taken from it."""
    path = app / name
    if path.suffix != ".toml":
        return path.read_text()
    try:
        project = tomllib.loads(path.read_text()).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise ReleaseError(f"{name}: {error}", release_fault=True) from None
    if "dependencies" in project.get("dynamic", []):
        raise ReleaseError(
            f"{name}: its dependencies are dynamic. Lock them into a requirements.txt and name that file.",
            release_fault=True,
        )
    return "\n".join(project.get("dependencies", [])) + "\n"


def virtualenv(releases: Releases, app: Path, wheel: Path, options: dict[str, Any]) -> Path:
    """The virtualenv for this lock file, runtime and Python; made if it is not there, or not whole.

    A damaged one stays where it is while a release or a program uses it: the new one has a name beside.
    """
    lines = requirement_lines(app, options["requirements"])
    python = options["python"]
    version = run([python, "-VV"], f"{python} -VV", "Set celery_app_python to a Python 3.11 or newer.", {}, 30)
    identity = json.dumps([lines, hashlib.sha256(wheel.read_bytes()).hexdigest(), version, os.uname().machine])
    stem = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = releases.base / "venvs"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
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
        install(venv, lines, wheel, options)
    except ReleaseError:
        shutil.rmtree(venv, ignore_errors=True)
        raise
    (venv / ".complete").touch()
    return venv


def stem_of(venv: Path) -> str:
    """What all virtualenvs for the same content begin with."""
    return venv.name.partition("-")[0]


def install(venv: Path, lines: str, wheel: Path, options: dict[str, Any]) -> None:
    """Make a virtualenv and install into it. Raises ReleaseError."""
    environment = {
        **{key: str(value) for key, value in json.loads(options["install_environment"] or "{}").items()},
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    run(
        [options["python"], "-m", "venv", str(venv)], "Making the virtualenv",
        "Debian's python3-venv has to be installed: apt-get install python3-venv", {}, INSTALL_TIMEOUT,
    )  # fmt: skip
    wanted = venv / "requirements.txt"
    wanted.write_text(lines)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "-q", "--progress-bar", "off"]
    run(
        [*pip, "-r", str(wanted)], f"Installing {options['requirements']}",
        "Fix the file, or reach the index: celery_app_install_environment (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY).",
        environment, INSTALL_TIMEOUT, of_release=True,
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
    venv = release / "venv/bin"
    if not (venv / "celery-ops-inspect").exists():
        return {}
    out = run(
        [
            "runuser", "-u", options["user"], "--", str(venv / "celery-ops-env"), options["environment_file"],
            "--chdir", str(release / "app"), "--", str(venv / "python"), "-B", str(venv / "celery-ops-inspect"),
            "-A", options["celery_module"],
        ],
        f"Importing {options['celery_module']} (release {release.name})",
        "Nothing that runs was touched. Fix the source and deploy again.", {}, IMPORT_TIMEOUT, of_release=True,
    )  # fmt: skip
    report = json.loads(out.splitlines()[-1])
    if refused := report["refused"]:
        lines = [f"{one['problem']}. Write: {one['write']}" for one in refused]
        raise ReleaseError(
            f"{options['celery_module']} (release {release.name}) can't work as it is. "
            + "\n".join(["Nothing that runs was touched. Correct it and deploy again.", *lines]),
            release_fault=True,
        )
    return report


def prune_virtualenvs(base: Path, linked: set[Path], used: str) -> None:
    """Remove virtualenvs that no release links to, `used` does not name and no process runs from."""
    for venv in (base / "venvs").iterdir():
        if venv.resolve() not in linked and venv.name not in used and not runs_from(venv):
            shutil.rmtree(venv)
