"""Run a command of a build, and explain why it failed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import of_clock
from ansible_collections.celery_ops.kit.plugins.module_utils.host_work import uninterrupted
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import without_unpack_place

GRACE = 10.0  # seconds for a command that was told to end
FAULT_OF_HOST = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Cannot allocate memory|MemoryError"
    r"|Too many open files|Resource temporarily unavailable|^runuser: |^celery-ops-env: "
    r"|Temporary failure in name resolution|Name or service not known|Network is unreachable|No route to host"
    r"|Connection (refused|reset|timed out)|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError"
    r"|Could not resolve (host|proxy)|(Couldn't|Could not) connect to server|certificate problem"
    r"|HTTP code \d+ from proxy|CONNECT tunnel failed"
    r"|CERTIFICATE_VERIFY_FAILED|Retrying \(Retry\(|Max retries exceeded"
    r"|HTTP error (401|403|407|5\d\d)|\b(401|403|407|5\d\d) (Client |Server )?Error",
    re.IGNORECASE | re.MULTILINE,
)
"""In the output of a command: what no release is to blame for."""
LAST_LINES = 20
IN_PATH = re.compile(r"(?=.*\d)[\w.~%-]{16,}")
"""A part of an address that may be a token: long, and with a digit."""
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
    *(
        (
            pattern,
            "The project takes its version from git, and a release has no .git. Write: celery_app_install_environment: "
            f'{{{name}: "1.0"}} (its version)',
            "",
        )
        for pattern, name in (
            (r"setuptools-scm was unable to detect version", "SETUPTOOLS_SCM_PRETEND_VERSION"),
            (r"PDM_BUILD_SCM_VERSION", "PDM_BUILD_SCM_VERSION"),
            (r"Versioning for this project requires either", "PBR_VERSION"),
            (
                r"Unable to detect version control system|This does not appear to be a Git project",
                "POETRY_DYNAMIC_VERSIONING_BYPASS",
            ),
        )
    ),
    (
        r"\[Errno 98\]|address already in use",
        "The application opens a port when it is imported, and a program that runs has it. Workers, scheduler and "
        "commands import it beside each other: open the port where one program starts (signals.worker_ready, say).",
        "",
    ),
    (
        r"No module named '(pkg_resources|distutils)\b",
        "Python 3.12 and newer have it no more. Write: setuptools<81 (into celery_app_requirements)",
        "",
    ),
    (
        r"You need to install the ephem library",
        "The schedule has a solar entry. Write: celery[solar] (into celery_app_requirements)",
        "",
    ),
    (
        r"requires a different Python: ",
        "It asks for another Python than celery_app_python. Write: celery_app_python: the path of one that fits, or "
        "correct requires-python.",
        "",
    ),
    (
        r"PermissionError: .*'([^/'][^']*|/\S*/(releases|current)/[^']*)'|Read-only file system: '/srv/"
        r"|readonly database|unable to open database file",
        "A release is read-only. What the application writes belongs to a path of celery_app_shared (kept in "
        "/srv/<app>/shared across releases), or to /var/lib/<app>.",
        "",
    ),
]
"""In the output of a command: what is known to be behind it, and the packages to write."""
VARIABLE_MISSING = re.compile(
    r"""<frozen os>", line \d+, in __getitem__(?:\n.*){0,3}?\nKeyError: '(\w+)'"""
    r"|UndefinedValueError: (\w+) not found|Set the (\w+) environment variable"
    r"|define the environment variable (\w+)|[Ee]nvironment variable ['\"](\w+)['\"] (?:is )?not set"
    r"|Config '(\w+)' is missing, and has no default"
)
"""In the output of a command: an environment variable that Python, a library for settings, Django or Celery misses."""
SETTINGS_MISSING = re.compile(r"validation errors? for (\w*(?:Settings|Config)\w*)\n([\s\S]*)")
"""In the output of a command: a class of settings for which pydantic misses variables, and which."""


class ReleaseError(OperatorError):
    """What the operator reads; `release_fault` when what the release itself holds or did is the cause."""

    def __init__(self, message: str, release_fault: bool = False) -> None:
        super().__init__(message)
        self.release_fault = release_fault


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
    process = None
    try:
        with uninterrupted() as held:  # who is interrupted while it is being started would not know what to end
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**without_unpack_place(), **environment},
                process_group=0,
                preexec_fn=partial(signal.pthread_sigmask, signal.SIG_SETMASK, held),
                cwd=directory,
            )
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:
        if process is not None:
            end_group(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise ReleaseError(f"{what} did not end within {timeout:.0f} s; {too_slow}") from error
        if process is None and isinstance(error, OSError):
            raise ReleaseError(f"{what} failed. {hint}\n{command[0]}: {error.strerror}") from None
        raise  # we are to end
    if process.returncode:
        said = (out + err).strip()
        killed = process.returncode < 0 or process.returncode == 137
        fault = of_release and not killed and not FAULT_OF_HOST.search(said) and not lacks_packages(said)
        text = "\n".join([f"{what} failed. {hint}", *known_causes(said), reason(said) or silent(process.returncode)])
        raise ReleaseError(masked(text, environment.values()), fault)
    return out


def lacks_packages(said: str) -> bool:
    """Whether the output of a command tells that the host lacks what Debian's packages bring."""
    return any(packages and re.search(pattern, said) for pattern, _, packages in KNOWN)


def known_causes(said: str) -> Iterator[str]:
    """What is known to be behind the output of a command that failed, and what to write."""
    for pattern, text, packages in KNOWN:
        if re.search(pattern, said):
            write = f" Write: celery_app_packages: [{packages}], then type: ansible-playbook playbooks/site.yml"
            yield text + (write if packages else "")
    yield from of_clock(said)
    yield from of_pydantic(said)
    for name in dict.fromkeys(next(filter(None, found)) for found in VARIABLE_MISSING.findall(said)):
        yield (
            f"The application needs the environment variable {name}. Write: celery_app_environment: {{{name}: ...}}, "
            f"or, if it is a secret: celery_app_secrets: {{{name}: ...}}"
        )


def of_pydantic(said: str) -> Iterator[str]:
    """What pydantic misses, under the names that its settings have by default."""
    for model, text in SETTINGS_MISSING.findall(said):
        for name in re.findall(r"^(\w+)\n\s+[Ff]ield required\b", text, re.MULTILINE):
            variable = name.upper()
            yield (
                f"{model} has no value for {name}. Write: celery_app_environment: {{{variable}: ...}}, or, if it is a "
                f"secret: celery_app_secrets: {{{variable}: ...}} (where {model} has an env_prefix, with that)"
            )


def silent(status: int) -> str:
    """What there is to say of a command that failed and said nothing."""
    return f"It printed nothing, and {f'was ended by signal {-status}' if status < 0 else f'exited with {status}'}."


def reason(said: str) -> str:
    """Why a command failed: the last lines of what it said, and before them what a compiler or pip's resolver said."""
    lines = said.splitlines()
    tail = len(lines) - LAST_LINES
    shown = {number for number, line in enumerate(lines[: max(0, tail)]) if CAUSE.search(line)}
    for number in [number for number in shown if "The conflict is caused by" in lines[number]]:
        shown |= set(range(number, min(number + LAST_LINES, tail)))
    return "\n".join([*(lines[number] for number in sorted(shown)[:LAST_LINES]), *lines[max(0, tail) :]])


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

    Paths stay, and what is too short to be one. No login in an address is shown, wherever it comes from. Some indexes
    have the token in the address' path or query.
    """
    hidden: set[str] = set()
    for value in values:
        if logins := re.findall(r"//([^/@\s]+)@", value):
            passwords = {login.partition(":")[2] or login for login in logins}
            hidden |= {*logins, *passwords, *map(unquote, passwords)}
        elif "://" not in value and not value.startswith(("/", "~")):
            hidden.add(value)
        for path in re.findall(r"https?://[^/\s]+(/\S*)", value):
            hidden |= {part for part in re.split(r"[/?&=#]", path) if IN_PATH.fullmatch(part)}
    for secret in sorted((piece for piece in hidden if len(piece) >= 4), key=len, reverse=True):
        text = text.replace(secret, "********")
    text = re.sub(r"(://[^/@:\s]*:)[^/@\s]+@", r"\1********@", text)
    return re.sub(r"(https?://)[^/@:\s]+@", r"\1********@", text)
