"""Pack an application's source on the control node; the release is named by the content's hash."""

from __future__ import annotations

import difflib
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import replacing
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SECRET_FILE
from ansible_collections.celery_ops.kit.plugins.module_utils.listeners import listener_version
from ansible_collections.celery_ops.kit.plugins.module_utils.requirement_files import included, text_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action
from ansible_collections.celery_ops.kit.plugins.plugin_utils.python_project import (
    how_to_make,
    requirements_of,
    there_instead,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import deployment_id
from ansible_collections.celery_ops.kit.plugins.plugin_utils.source_files import (
    Files,
    excluded,
    files_of,
    is_private,
    refuse_pointers,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import is_directory, path_of

GIT_ADDRESS = re.compile(r"^(https?|ssh|git|file)://|^([\w.-]+@)?[\w.-]+:(?!//)|\.git/?$")
ASKPASS = Path(__file__).resolve().parents[1] / "plugin_utils/git-askpass"


def is_git(source: str) -> bool:
    """Whether `source` is a git address, a repository without a working copy included, rather than a directory."""
    directory = path_of(source)
    if is_directory(directory) and not source.rstrip("/").endswith(".git"):
        return (directory / "HEAD").is_file() and all((directory / name).is_dir() for name in ("objects", "refs"))
    return bool(GIT_ADDRESS.search(source))


LOGIN = re.compile(r"https?://[^/@\s]+@")
"""In a requirement file: an address with a token, of an index or a repository."""


def pack(
    into: IO[bytes],
    files: dict[str, Path],
    links: dict[str, str] | None = None,
    texts: dict[str, str] | None = None,
    private: Collection[str] = (),
) -> None:
    """Write files by their name in it, links and texts, as a tar of nothing but names, contents and modes.

    Of the modes counts whether a file can be run, and whether it is for root and the application only: by its name, or
    as one of those that are `private`.
    """
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in files.items():
            entry = tar.gettarinfo(path, arcname=name)
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            entry.mode = (0o755 if entry.mode & 0o100 else 0o644) & (
                0o750 if name in private or is_private(name) else 0o755
            )
            if entry.islnk():  # a second name of a file that is there already
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for name, text in (texts or {}).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o640 if name in private else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))


class Address:
    """A git address, and the login in it, which is to be seen neither in a process list nor in any output."""

    def __init__(self, given: str) -> None:
        if (directory := Path(given).expanduser()).is_dir():  # the same words name another one elsewhere
            given = str(directory.resolve())
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


def mirror_of(address: Address, cache: Path) -> Path:
    """Return where the control node keeps its copy of a repository."""
    return cache / ("git-" + hashlib.sha256(address.bare.encode()).hexdigest()[:16])


def checkout(address: Address, version: str, cache: Path, into: Path) -> str:
    """Put the tree of `version` into a directory, with its submodules; the commit's hash comes back.

    Raises AnsibleActionFail when the repository or the version is not there.
    """
    mirror = mirror_of(address, cache)
    at = ("--git-dir", str(mirror))
    if mirror.exists():
        git(address, *at, "fetch", "--quiet", "--prune", "--force", "origin", "+refs/*:refs/*")
        if version == "HEAD":
            follow_default_branch(address, mirror)
    else:
        half = mirror.with_name(f"{mirror.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        git(address, "clone", "--quiet", "--mirror", "--", address.bare, str(half))
        half.replace(mirror)
    try:
        commit = git(address, *at, "rev-parse", "--verify", "--quiet", version + "^{commit}").strip()
    except AnsibleActionFail:
        raise NoVersion(no_version(address, mirror, version)) from None
    (mirror / "index.lock").unlink(missing_ok=True)  # of a run that was killed: no other works with the cache
    git(address, *at, "--work-tree", str(into), "checkout", "--quiet", "--force", commit, "--", ".")
    entries = (entry.partition("\t") for entry in git(address, *at, "ls-tree", "-rz", commit).split("\0"))
    for about, _, path in entries:
        if about.startswith("160000"):
            url = submodule_url(address, mirror, commit, path)
            (into / path).mkdir(parents=True, exist_ok=True)
            try:
                checkout(url, about.split()[2], cache, into / path)
            except NoVersion:
                raise AnsibleActionFail(
                    f"The submodule {path} of {address.bare}: {url.bare} does not have its commit "
                    f"{about.split()[2][:12]}. Type, in {path} of your working copy: git push"
                ) from None
            except AnsibleActionFail as error:
                raise AnsibleActionFail(f"The submodule {path} of {address.bare}: {error}") from None
    return commit


class NoVersion(AnsibleActionFail):
    """A repository does not have the branch, tag or commit that was asked for."""


def no_version(address: Address, mirror: Path, version: str) -> str:
    """What an operator reads where a repository does not have a version, and what to write."""
    listed = ("for-each-ref", "--sort=-creatordate", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags")
    there = git(address, "--git-dir", str(mirror), *listed).splitlines()
    meant = version.removeprefix("refs/remotes/").removeprefix("origin/")
    write = meant if meant in there else next(iter(difflib.get_close_matches(meant, there, 1) or there), "<a branch>")
    problem = "its default branch is not there" if version == "HEAD" else "no such branch, tag or commit"
    return (
        f"celery_app_version is {version}: {problem} in {address.bare}. Available: {some(there) or 'none'}. "
        f"Write: celery_app_version: {write}"
    )


def follow_default_branch(address: Address, mirror: Path) -> None:
    """Make HEAD of the control node's copy what it is at the origin; a fetch leaves it at the branch of the clone."""
    at = ("--git-dir", str(mirror))
    said = git(address, *at, "ls-remote", "--symref", "origin", "HEAD")
    if branch := re.search(r"^ref: (\S+)\tHEAD$", said, re.MULTILINE):
        git(address, *at, "symbolic-ref", "HEAD", branch[1])
    elif commit := re.search(r"^([0-9a-f]{40,})\tHEAD$", said, re.MULTILINE):
        git(address, *at, "update-ref", "--no-deref", "HEAD", commit[1])


def submodule_url(address: Address, mirror: Path, commit: str, path: str) -> Address:
    """Where a submodule is, in a repository of `address`; on the same server the login is the same."""
    listed = ("config", "--blob", f"{commit}:.gitmodules", "-z", "--get-regexp", r"^submodule\..*\.(path|url)$")
    try:
        lines = git(address, "--git-dir", str(mirror), *listed).split("\0")
    except AnsibleActionFail:
        lines = []
    settings = dict(line.split("\n", 1) for line in lines if "\n" in line)
    name = next(
        (key[: -len(".path")] for key, value in settings.items() if key.endswith(".path") and value == path), ""
    )
    url = settings.get(f"{name}.url", "")
    if not url:
        raise AnsibleActionFail(
            f"{path} is a git submodule of {address.bare}, and .gitmodules does not say where it is. Correct "
            f".gitmodules, or remove it: git rm --cached {path}"
        )
    base = address.bare.rstrip("/")
    while url.startswith(("./", "../")):
        if url.startswith("../"):
            base = base[: max(base.rfind("/"), base.rfind(":") + 1)]
        url = url.partition("/")[2]
        if not url.startswith(("./", "../")):
            url = f"{base}{'' if base.endswith(':') else '/'}{url}"
    found = Address(url)
    if not found.user and host_of(found.bare) == host_of(address.bare):
        found.user, found.password, found.hidden = address.user, address.password, address.hidden
    return found


def host_of(url: str) -> str:
    """Scheme and host of an address; empty for one that takes no login."""
    return (re.match(r"https?://[^/]+", url) or [""])[0]


def configured_ssh() -> str:
    """The ssh that git would use without us: of the user's configuration, where it may name a deploy key."""
    asked = subprocess.run(["git", "config", "--global", "core.sshCommand"], capture_output=True, text=True)
    return asked.stdout.strip() or shlex.quote(os.environ.get("GIT_SSH") or "ssh")


def git(address: Address, *arguments: str) -> str:
    """Run git; no prompt ever blocks a headless run."""
    if not shutil.which("git"):
        raise AnsibleActionFail(
            f"celery_app_source is {address.bare}, and git is not on the control node. Type there: apt-get install git"
        )
    ssh = os.environ.get("GIT_SSH_COMMAND") or configured_ssh()
    environment = {
        **os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": f"{ssh} -o BatchMode=yes", "LC_ALL": "C.UTF-8",
        **address.environment(),
    }  # fmt: skip
    done = subprocess.run(["git", *arguments], capture_output=True, env=environment)
    if done.returncode:
        verb = arguments[0] if not arguments[0].startswith("-") else arguments[2]
        said = address.without_login(done.stderr.decode(errors="replace").strip())
        raise AnsibleActionFail(f"git {verb} failed: {said}\n{what_to_do(said, address.bare)}")
    return os.fsdecode(done.stdout)  # a file's name may hold any bytes


def what_to_do(said: str, address: str) -> str:
    """What an operator does about a git that failed."""
    if damaged := re.search(r"['( ](/\S*/git-[0-9a-f]{16})[/']", said):
        return f"The control node's copy of the repository is damaged. Type: rm -r {damaged[1]}; then run this again."
    server = re.match(r"(?:ssh://)?(?:([^@/]+)@)?\[?([^/:\]]+)\]?(?::([0-9]+)/)?", address)
    user, host, port = server.groups() if server else (None, address, None)
    at = f"-p {port} {host}" if port else host
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        name = f"'[{host}]:{port}'" if port else host
        return (
            f"{host} has a different key than the control node knows. Ask its administrator whether it was changed; "
            f"if so, type: ssh-keygen -R {name}; ssh-keyscan {at} >> ~/.ssh/known_hosts"
        )
    if "Host key verification failed" in said:
        return (
            f"The control node does not know {host}. Compare its key, then type: ssh-keyscan {at} >> ~/.ssh/known_hosts"
        )
    if "Permission denied (publickey" in said:
        login = f"-p {port} {user or 'git'}@{host}" if port else f"{user or 'git'}@{host}"
        return (
            f"{host} accepts no key of the user who runs ansible-playbook, and no passphrase is asked for. Load one "
            f"(ssh-add), or name it: export GIT_SSH_COMMAND='ssh -i /path/to/key'. Look: ssh -o BatchMode=yes {login}"
        )
    return "Look at celery_app_source and celery_app_version; the control node needs read access to the repository."


def runtime_files(runtime: Path) -> dict[str, Path]:
    """The kit's runtime, by its files' names in a release. A link in it is a file that other parts of the kit use."""
    files = sorted(runtime.glob("celery_ops/**/*.py"))
    return {f"runtime/{path.relative_to(runtime)}": path.resolve() for path in files}


def prepare(arguments: dict[str, Any]) -> dict[str, Any]:
    """Pack the source and the kit's runtime into the cache; say where, and what the release is called.

    The source is app/. Where the application is a directory of it, the source is source/, and app is a link to that.
    """
    source, cache = str(arguments["source"]), Path(arguments["cache"]).expanduser()
    runtime = Path(arguments["runtime"])
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=cache) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commit, tree = "", Path(source).expanduser()
        if is_git(source):
            tree = Path(scratch)
            address = Address(source)
            commit, source = checkout(address, str(arguments.get("version") or "HEAD"), cache, tree), address.bare
        elif not tree.is_dir():
            raise AnsibleActionFail(
                f"celery_app_source is {source}: no such directory on the control node, and not a git URL. "
                "Set it to your application's directory (the one that holds its requirements)."
            )
        try:
            found = files_of(tree, list(arguments.get("exclude") or []), checked_out=bool(commit))
            refuse_pointers(tree, found.names)
            members, links, texts, private = layout(tree, source, found, arguments)
        except OperatorError as error:
            raise AnsibleActionFail(str(error)) from None
        settings = json.dumps([str(arguments["requirements"]), list(arguments.get("commands") or [])])
        with tempfile.TemporaryFile(dir=cache) as tar:  # it may be larger than the memory
            pack(tar, {**runtime_files(runtime), **members}, links, texts, private)
            tar.seek(0)
            digest = hashlib.file_digest(tar, "sha256")
            digest.update(settings.encode())
            identity = digest.hexdigest()[:12]
            archive = cache / f"{identity}.tar.gz"
            if archive.exists():
                archive.touch()  # another run that packs meanwhile forgets the oldest
            else:
                tar.seek(0)
                compress(tar, archive)
                forget_old(cache, keep=20)
    listener = listener_version(runtime / "celery_ops")
    return {
        "id": identity, "archive": str(archive), "commit": commit, "source": source, "listener": listener,
        "left_out": [f"{len(names)} ({why}): {some(names)}" for why, names in found.left_out.items()],
    }  # fmt: skip


def compress(tar: IO[bytes], archive: Path) -> None:
    """Write the archive in one step; nobody else reads it."""
    with (
        replacing(archive, SECRET_FILE) as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        shutil.copyfileobj(tar, packed, 1 << 20)


def known(release: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Say of a release that the hosts have what `prepare` says of one that is packed."""
    cache, runtime = Path(arguments["cache"]).expanduser(), Path(arguments["runtime"])
    listener = listener_version(runtime / "celery_ops")
    archive = str(cache / f"{release}.tar.gz")
    return {"id": release, "archive": archive, "commit": "", "source": "", "listener": listener}


def some(names: list[str]) -> str:
    """The first of some names."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:5]]
    return ", ".join(shown) + (", ..." if names[5:] else "")


def layout(
    tree: Path, source: str, found: Files, arguments: dict[str, Any]
) -> tuple[dict[str, Path], dict[str, str], dict[str, str], set[str]]:
    """The files, links and texts of a release, by their names in it, and the names of those that hold a login.

    Raises OperatorError or AnsibleActionFail for what is not there.
    """
    directory, requirements = str(arguments.get("directory") or "").strip("/"), str(arguments["requirements"])
    if not found.names:
        raise AnsibleActionFail(f"celery_app_source is {source}: it contains no files to release.")
    root, names = tree / directory, set(found.names)
    if directory and not any(name.startswith(f"{directory}/") for name in names):
        there = sorted({name.split("/")[0] for name in names if "/" in name})
        raise AnsibleActionFail(
            f"celery_app_directory is {directory}: no such directory in {source}. Available: {some(there) or 'none'}. "
            "Write: celery_app_directory: a directory of the source, or leave it out."
        )
    if os.path.normpath(Path(directory, requirements)) not in names:
        inside = [
            name.removeprefix(f"{directory}/")
            for name in names
            if name.startswith(f"{directory}/" if directory else "")
        ]
        there = there_instead(inside)
        raise AnsibleActionFail(
            f"celery_app_requirements is {requirements}: no such file in {Path(source) / directory}. "
            + (f"There is {some(there)}. Write: celery_app_requirements: {there[0]}" if there else how_to_make(inside))
        )
    texts = requirements_of(tree, root, requirements, list(arguments.get("extras") or []))
    read = {str(Path(directory, requirements)): text_of(root / requirements)}
    if not texts:
        read = included(tree, str(Path(directory, requirements)))
        for name in read:
            if name not in names:
                raise OperatorError(f"{requirements} includes {name}, which is not part of the release. Add it.")
    top = "source" if directory else "app"
    private = {f"{top}/{name}" for name, text in read.items() if LOGIN.search(text)}
    private |= {name for name, text in texts.items() if LOGIN.search(text)}
    shared = {str(Path(directory, path)): path.strip("/") for path in arguments.get("shared") or []}
    kept = [name for name in found.names if not excluded(name, list(shared))]
    links = {f"{top}/{name}": f"{arguments.get('shared_directory')}/{path}" for name, path in shared.items()}
    if directory:
        links["app"] = f"source/{directory}"
    for name in sorted(names - set(kept)):
        found.leave_out("celery_app_shared", name)
    return {f"{top}/{name}": tree / name for name in kept}, links, texts, private


def forget_old(cache: Path, keep: int) -> None:
    """Remove all but the newest packed sources."""
    for archive in sorted(cache.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        archive.unlink()


class ActionModule(Action):
    """Runs wholly on the control node."""

    def act(self) -> dict[str, Any]:
        """Pack, and return id, archive, commit, source."""
        if release := str(self._task.args.get("release") or ""):
            return {"changed": False, "deployment": deployment_id(), **known(release, self._task.args)}
        packed = prepare(self._task.args)
        if packed["left_out"]:
            # Once for a run: it packs once for all hosts.
            Display().display(f"Not part of the release: {'; '.join(packed['left_out'])}")
        return {"changed": False, "deployment": deployment_id(), **packed}
