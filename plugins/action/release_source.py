"""Pack an application's source on the control node; the release is named by the content's hash."""

from __future__ import annotations

import fcntl
import fnmatch
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

sys.path.append(str(Path(__file__).resolve().parents[1]))

from module_utils.deployments import new_id
from module_utils.listener_version import listener_version

GIT_ADDRESS = re.compile(r"^(https?|ssh|git|file)://|^[\w.-]+@[\w.-]+:|\.git/?$")
REQUIREMENTS = ("requirements.txt", "pyproject.toml")
ASKPASS = Path(__file__).resolve().parents[1] / "plugin_utils/git-askpass"
# Wheels hold file times; a fixed one makes the same source the same wheel.
WHEEL_EPOCH = "946684800"


def is_git(source: str) -> bool:
    """Whether `source` is a git address rather than a folder."""
    return bool(GIT_ADDRESS.search(source)) and not (Path(source).is_dir() and not source.rstrip("/").endswith(".git"))


def files_of(folder: Path, exclude: list[str]) -> list[Path]:
    """Every file and link below `folder` that no pattern excludes, sorted, as relative paths."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not excluded(name, exclude))
        here = Path(root).relative_to(folder)
        links = [name for name in folders if (Path(root) / name).is_symlink()]
        found += [here / name for name in [*names, *links] if not excluded(name, exclude)]
    return sorted(found)


def excluded(name: str, patterns: list[str]) -> bool:
    """Whether a file or folder of that name stays out of a release."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def pack(files: dict[str, Path]) -> bytes:
    """Files by their name in it, as a tar that depends on nothing but names, contents and executable bits."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in files.items():
            entry = tar.gettarinfo(path, arcname=name)
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return buffer.getvalue()


class Address:
    """A git address, and the login in it, which is to be seen neither in a process list nor in any output."""

    def __init__(self, given: str) -> None:
        self.user, self.password, self.bare = "", "", given
        if found := re.match(r"(https?://)([^/@\s]+)@(.*)", given):
            user, _, password = found[2].partition(":")
            self.user, self.password, self.bare = unquote(user), unquote(password), found[1] + found[3]
        self.hidden = {found[2], found[2].partition(":")[2] or found[2], self.password or self.user} if found else set()

    def environment(self) -> dict[str, str]:
        """What makes git log in: it asks a program, which finds the answers in its environment."""
        if not self.user:
            return {}
        settings = {f"credential.{self.bare}.username": self.user}
        if self.password:
            settings["credential.helper"] = ""  # nobody else's login, and none is stored
        numbered = {}
        for number, (key, value) in enumerate(settings.items()):
            numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return {
            **numbered,
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_ASKPASS": str(ASKPASS),
            "CELERY_OPS_GIT_USER": self.user,
            "CELERY_OPS_GIT_PASSWORD": self.password,
        }

    def without_login(self, text: str) -> str:
        """`text` with the login in it hidden."""
        for secret in sorted(self.hidden - {""}, key=len, reverse=True):
            text = text.replace(secret, "********")
        return text


def checkout(address: Address, version: str, cache: Path, into: Path) -> str:
    """Put the tree of `version` into a folder; the commit's hash comes back.

    Raises AnsibleActionFail when the repository or the version is not there.
    """
    forget_logins(cache)
    mirror = cache / ("git-" + hashlib.sha256(address.bare.encode()).hexdigest()[:16])
    if mirror.exists():
        git(address, "--git-dir", str(mirror), "fetch", "--quiet", "--prune", "--force", "origin", "+refs/*:refs/*")
    else:
        git(address, "clone", "--quiet", "--mirror", address.bare, str(mirror))
    commit = git(address, "--git-dir", str(mirror), "rev-parse", "--verify", version + "^{commit}").strip()
    git(
        address,
        "--git-dir",
        str(mirror),
        "--work-tree",
        str(into),
        "checkout",
        "--quiet",
        "--force",
        commit,
        "--",
        ".",
    )
    return commit


def forget_logins(cache: Path) -> None:
    """Remove mirrors whose address holds a login, as the kit made them before 0.3."""
    for mirror in cache.glob("git-*"):
        config = mirror / "config"
        if config.exists() and re.search(r"https?://[^/@\s]+@", config.read_text()):
            shutil.rmtree(mirror)


def git(address: Address, *arguments: str) -> str:
    """Run git; no prompt ever blocks a headless run."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", **address.environment()}
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        verb = arguments[0] if not arguments[0].startswith("-") else arguments[2]
        raise AnsibleActionFail(
            f"git {verb} failed: {address.without_login(done.stderr.strip())}\n"
            "Look at celery_app_source and celery_app_version; the control node needs read access to the repository."
        )
    return done.stdout


def build_runtime(runtime: Path, cache: Path) -> Path:
    """The wheel of the kit's runtime, built only when its source has changed."""
    from flit_core import buildapi

    names = files_of(runtime, ["__pycache__", "*.pyc", "*.egg-info", "dist"])
    digest = hashlib.sha256(pack({str(name): runtime / name for name in names})).hexdigest()[:16]
    folder = cache / f"runtime-{digest}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            before, epoch = Path.cwd(), os.environ.get("SOURCE_DATE_EPOCH")
            os.chdir(runtime)
            os.environ["SOURCE_DATE_EPOCH"] = WHEEL_EPOCH
            try:
                buildapi.build_wheel(scratch)
            finally:
                os.chdir(before)
                os.environ.pop("SOURCE_DATE_EPOCH") if epoch is None else os.environ.update(SOURCE_DATE_EPOCH=epoch)
            folder.mkdir()
            for wheel in Path(scratch).glob("*.whl"):
                wheel.replace(folder / wheel.name)
    return next(folder.glob("*.whl"))


def prepare(arguments: dict[str, Any]) -> dict[str, Any]:
    """Pack the source, as app/, and the runtime's wheel into the cache; say where, and what the release is called."""
    source, cache = str(arguments["source"]), Path(arguments["cache"]).expanduser()
    runtime = Path(arguments["runtime"])
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=cache) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commit, folder = "", Path(source).expanduser()
        if is_git(source):
            folder = Path(scratch)
            address = Address(source)
            commit, source = checkout(address, str(arguments["version"]), cache, folder), address.bare
        elif not folder.is_dir():
            raise AnsibleActionFail(
                f"celery_app_source is {source}: no such folder on the control node, and no git address. "
                "Set it to your application's folder (the one that holds its requirements)."
            )
        exclude = list(arguments["exclude"])
        names = files_of(folder, exclude)
        if not names:
            raise AnsibleActionFail(f"celery_app_source is {source}: there is not a file in it to release.")
        if Path(arguments["requirements"]) not in names:
            there = [name for name in REQUIREMENTS if Path(name) in names]
            raise AnsibleActionFail(
                f"celery_app_requirements is {arguments['requirements']}: no such file in {source}. "
                + (
                    f"There is {there[0]}: set celery_app_requirements: {there[0]}"
                    if there
                    else "Name a lock file in it."
                )
            )
        wheel = build_runtime(runtime, cache)
        tar = pack({wheel.name: wheel, **{f"app/{name}": folder / name for name in names}})
        identity = hashlib.sha256(tar + str(arguments["requirements"]).encode()).hexdigest()[:12]
        archive = cache / f"{identity}.tar.gz"
        if archive.exists():
            archive.touch()  # another run that packs meanwhile forgets the oldest
        else:
            fresh = archive.with_suffix(".new")
            fresh.write_bytes(gzip.compress(tar, 6, mtime=0))
            fresh.replace(archive)
            forget_old(cache, keep=20)
    listener = listener_version(lambda name: (runtime / name).read_bytes())
    return {"id": identity, "archive": str(archive), "commit": commit, "source": source, "listener": listener}


def forget_old(cache: Path, keep: int) -> None:
    """Remove all but the newest packed sources."""
    for archive in sorted(cache.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        archive.unlink()


class ActionModule(ActionBase):
    """Runs wholly on the control node."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Pack, and return id, archive, commit, source."""
        super().run(tmp, task_vars)
        return {"changed": False, "deployment": new_id(), **prepare(self._task.args)}
