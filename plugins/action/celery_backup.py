"""Make one encrypted file of an application's parts on all hosts, and restore them from it."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_new
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SECRET_DIRECTORY, SECRET_FILE, Layout
from ansible_collections.celery_ops.kit.plugins.plugin_utils import rotation
from ansible_collections.celery_ops.kit.plugins.plugin_utils.app_command import AppCommand, last_words
from ansible_collections.celery_ops.kit.plugins.plugin_utils.groups import app_hosts
from ansible_collections.celery_ops.kit.plugins.plugin_utils.runs import actor
from ansible_collections.celery_ops.kit.plugins.plugin_utils.sealed import SealedReader, SealedWriter, SealError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import path_of, worker_programs_of_hosts

MANIFEST, MESSAGES = "backup.json", "messages"
LEAST = 16
"""Characters of a passphrase, at least."""
BEGUN = "__celery_app_backup"
PART, READ, WRITTEN = "__celery_app_backup_part", "__celery_app_backup_messages", "__celery_app_restore_messages"
"""What earlier tasks of the run registered."""


class ActionModule(AppCommand):
    """Carries out `state`, with the module of the same name where it is about a host."""

    def act(self) -> dict[str, Any]:
        """Return counts, and a text for people."""
        states: dict[str, Callable[[], dict[str, Any]]] = {
            name: getattr(self, name)
            for name in (
                "ready", "waiting", "collected", "messages", "sealed", "removed", "opened", "secrets", "restored",
                "written", "compared",
            )
        }  # fmt: skip
        try:
            return {"changed": False, **states[self._task.args["state"]]()}
        except SealError as error:
            raise OperatorError(str(error)) from error
        except OSError as error:
            raise OperatorError(f"{error.filename or self.file}: {error.strerror or error}") from error

    # What is asked of the variables

    @property
    def app(self) -> str:
        """The application."""
        return str(self.variables["celery_app_name"])

    @property
    def host(self) -> str:
        """The host's name in the inventory."""
        return str(self.variables["inventory_hostname"])

    @property
    def file(self) -> Path:
        """The backup on the control node. The first step's answer stays: a name with the time would go on changing."""
        known = (self.variables.get(BEGUN) or {}).get("file") or self.variables["celery_app_backup_file"]
        return Path(str(known)).expanduser().absolute()

    @property
    def parts(self) -> Path:
        """The directory of what has come from the hosts, each part encrypted."""
        return self.file.with_name(f".{self.file.name}.parts")

    @property
    def passphrase(self) -> str:
        """The passphrase; never an argument of a module or a command. Raises OperatorError."""
        given = str(self.variables["celery_app_backup_passphrase"])
        if len(given) < LEAST:
            raise OperatorError(
                f"celery_app_backup_passphrase has {len(given)} characters; it needs {LEAST}. Leave it out to have one "
                "generated in celery_app_secrets_dir, or take it from your vault."
            )
        return given

    @property
    def worker(self) -> str:
        """The host that reads and writes messages: one on which the application is."""
        found = [host for host in app_hosts(self.variables["groups"]) if host in self.variables["ansible_play_hosts"]]
        if not found:
            raise OperatorError(
                "no host of the groups worker, scheduler and web is in this run: without one nobody can read messages. "
                "Leave --limit out, or name one"
            )
        return found[0]

    @property
    def broker(self) -> str:
        """The host that is asked about RabbitMQ: one node of a cluster; empty for somebody else's broker."""
        hosts = [] if self.variables["celery_app_broker_url"] else self.variables["groups"].get("rabbitmq") or []
        return next((host for host in hosts if host in self.variables["ansible_play_hosts"]), "")

    def refuse_limit(self) -> None:
        """Raise OperatorError where --limit leaves out every host that has the messages, or the results."""
        for group in ("result_store", *([] if self.variables["celery_app_broker_url"] else ["rabbitmq"])):
            hosts = self.variables["groups"].get(group) or []
            if hosts and not {*hosts} & {*self.variables["ansible_play_hosts_all"]}:
                raise OperatorError(
                    f"--limit leaves out {', '.join(hosts)}, which has a part of what is backed up (group {group}). "
                    "Nothing was done. Leave --limit out, or name it, too"
                )

    # Of a host

    def module(self, **arguments: Any) -> dict[str, Any]:
        """Return the module's answer. Raises OperatorError."""
        arguments = {"app": self.app, "groups": self.variables["group_names"], **arguments}
        answer = self.run_module(arguments)
        if answer.get("failed"):
            raise OperatorError(f"{self.host}: {answer.get('msg') or str(answer.get('module_stderr', ''))[-300:]}")
        return answer

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file of the host's part."""
        offset = 0
        while data := base64.b64decode(self.module(state="read", file=name, offset=offset)["data"]):
            yield data
            offset += len(data)

    def bring(self, name: str, path: Path) -> None:
        """Bring a file to the host, in its place."""
        answer = self._low_level_execute_command("mktemp", sudoable=False)
        if answer["rc"]:
            raise OperatorError(f"{self.host}: there is no room for the backup: {answer['stderr'].strip()}")
        self.module(state="received", file=name, source=self._transfer_file(str(path), answer["stdout"].strip()))

    # A backup

    def ready(self) -> dict[str, Any]:
        """Refuse before anything is read; and say that nothing but the passphrase opens the file."""
        self.refuse_limit()
        if self.file.exists():
            raise OperatorError(f"celery_app_backup_file: {self.file} is there already, and stays. Name another one.")
        _ = self.passphrase, self.worker
        if not self._task.check_mode:
            self.file.parent.mkdir(mode=SECRET_DIRECTORY, parents=True, exist_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)
            self.parts.mkdir(mode=SECRET_DIRECTORY)
        return {"file": str(self.file)}

    def waiting(self) -> dict[str, Any]:
        """Return the messages that wait, by queue; where they must not, refuse."""
        if self.host != (self.broker or self.worker):
            return {"skipped": True, "queues": {}}
        found = self.module(state="empty")["counts"] if self.broker else self.own_queues()
        counts = {queue: count for queue, count in found.items() if count}
        said = ", ".join(f"{queue} {count}" for queue, count in sorted(counts.items())) or "none"
        if counts and self._task.args.get("refuse") and str(self.variables["celery_app_restore_used"]) != "yes":
            raise OperatorError(
                f"{self.host}: queues of {self.app} have messages ({said}). A restore is for an empty host. "
                "Nothing was restored. To do it nevertheless: -e celery_app_restore_used=yes"
            )
        return {"queues": counts, "text": f"would write {self.file} (check mode); messages that wait: {said}"}

    def collected(self) -> dict[str, Any]:
        """Collect the part of the host, and take it, encrypted before it touches a disk here."""
        answer = self.module(state="collected", broker=self.host == self.broker)
        with SealedWriter(self.parts / self.host, self.passphrase) as sealed:
            for piece in self.pieces("part.tar"):
                sealed.write(piece)
        return {key: answer[key] for key in ("counts", "queues", "running", "notes")}

    def messages(self) -> dict[str, Any]:
        """Read the messages of the queues that the broker's host has named."""
        if self.host != self.worker:
            return {"skipped": True}
        hosts = self.variables["hostvars"]
        queues = hosts[self.broker][PART]["queues"] if self.broker else sorted(self.own_queues())
        try:
            counts = self.command("read", *queues)
            with SealedWriter(self.parts / f".{MESSAGES}", self.passphrase) as sealed:
                lines = 0
                for piece in self.pieces(MESSAGES):
                    lines += piece.count(b"\n")
                    sealed.write(piece)
            if lines != sum(counts.values()):
                raise OperatorError(
                    f"{self.host}: another backup or restore of {self.app} runs at the same time. No message is lost. "
                    "Once it has ended, type the same again"
                )
        finally:
            self.module(state="removed")
        return {"queues": {queue: count for queue, count in counts.items() if count}}

    def own_queues(self) -> dict[str, int]:
        """Return the messages that wait at a broker of somebody else's, in each queue of the application's there is."""
        programs = [entry for entries in worker_programs_of_hosts(self.variables) for entry in entries]
        named = {str(queue) for entry in programs for queue in entry.get("queues") or ()}
        names = sorted({*named, self.app, Layout(self.app).dead_queue})
        words = ["celery-ops-queues", "-A", self.variables["celery_app_module"], "--own", *names]
        said = self.said_by(words)
        return {name: found["messages"] for name, found in said["queues"].items() if found}

    def said_by(self, words: list[str]) -> dict[str, Any]:
        """Return the line of JSON that a command of the application's prints. Raises OperatorError."""
        answer = self.as_app(words)
        try:
            said = json.loads(answer.get("stdout", "").strip().splitlines()[-1])
        except (ValueError, LookupError):
            raise OperatorError(
                f"{self.host}: {words[0]}: {answer.get('msg') or last_words(answer)}. A release of an earlier "
                "version of the kit can't do that: ansible-playbook playbooks/deploy.yml"
            ) from None
        if said["reason"]:
            done = f"; done before that: {said['queues']}. No message is lost." if "backup" in words[0] else ""
            raise OperatorError(f"{self.host}: {said['reason']}{done}")
        return said

    def command(self, action: str, *queues: str) -> dict[str, int]:
        """Run the application's own command, which has its credentials; return the messages by queue."""
        path = str(Layout(self.app).state / ".messages.backup")
        words = ["celery-ops-backup", action, "-A", self.variables["celery_app_module"], "--file", path, *queues]
        return self.said_by(words)["queues"]

    def sealed(self) -> dict[str, Any]:
        """Make one file of the parts and of the control node's secrets."""
        hosts, known = list(self.variables["ansible_play_hosts"]), self.variables["hostvars"]
        parts = {host: known[host][PART] for host in hosts if "counts" in known[host].get(PART, {})}
        queues = known[self.worker][READ]["queues"]
        manifest = {
            "app": self.app, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "who": actor(self.variables),
            "hosts": {host: part["counts"] for host, part in parts.items()}, "messages": queues,
            "running": sum(part["running"] for part in parts.values()),
        }  # fmt: skip
        secrets = secrets_of(path_of(self.variables["celery_app_secrets_dir"]), self.app, self.generated())
        with SealedWriter(self.file, self.passphrase) as out, tarfile.open(fileobj=out, mode="w|") as tar:
            add(tar, MANIFEST, json.dumps(manifest, indent=1).encode())
            for name, path in secrets.items():
                add(tar, f"secrets/{name}", path.read_bytes())
            for host in parts:
                sealed = SealedReader(self.parts / host, self.passphrase)
                with sealed as part, tarfile.open(fileobj=part, mode="r|") as of_host:
                    for member in of_host:
                        data = of_host.extractfile(member) if member.isreg() else None
                        member.name = f"hosts/{host}/{member.name}"
                        tar.addfile(member, data)
            with SealedReader(self.parts / f".{MESSAGES}", self.passphrase) as part:
                add(tar, MESSAGES, part.read())
        shutil.rmtree(self.parts, ignore_errors=True)
        size = self.file.stat().st_size / 1e6
        said = f"{self.app}: {summary(manifest)}, {len(secrets)} secrets. Encrypted, {size:.1f} MB: {self.file}"
        if manifest["running"]:
            said += f". {manifest['running']} tasks were with workers: they run here, and are not in the backup"
        return {"text": said, "file": str(self.file), "manifest": manifest}

    def generated(self) -> Iterator[Path]:
        """Yield the files with the secrets that the inventory itself has generated: their names are its own."""
        given = self.variables.raw.get("celery_app_secrets")
        for value in given.values() if isinstance(given, Mapping) else ():
            yield from rotation.password_files(value, self._templar.template)

    def removed(self) -> dict[str, Any]:
        """Remove what a run that failed has left, on the host and here."""
        self.module(state="removed")
        shutil.rmtree(self.parts, ignore_errors=True)
        return {}

    # A restore

    def members(self) -> Iterator[tuple[tarfile.TarInfo, Any]]:
        """Yield what is in the backup, in its order."""
        if not self.file.is_file():
            newest = max(self.file.parent.glob("*.sealed"), key=lambda path: path.stat().st_mtime, default=None)
            offer = f". The newest there: -e celery_app_backup_file={shlex.quote(str(newest))}" if newest else ""
            raise OperatorError(f"celery_app_backup_file: there is no {self.file}{offer}")
        with SealedReader(self.file, self.passphrase) as opened, tarfile.open(fileobj=opened, mode="r|") as tar:
            for member in tar:
                yield member, tar.extractfile(member) if member.isreg() else None

    def opened(self) -> dict[str, Any]:
        """Read the whole file: a damaged one is refused before anything changes. Return what it says of itself."""
        manifest: dict[str, Any] = {}
        for member, data in self.members():
            if member.name == MANIFEST:
                manifest = json.loads(data.read())
        if manifest.get("app") != self.app:
            of = manifest.get("app") or "nothing"
            raise OperatorError(f"{self.file} is a backup of {of}, and this inventory's application is {self.app}")
        if self.variables["celery_app_restore"] == "data":
            self.refuse_limit()
        return {"manifest": manifest, "text": f"{self.file} of {manifest['at']}: {summary(manifest)}"}

    def secrets(self) -> dict[str, Any]:
        """Write the secrets that the control node lacks; one that is there stays."""
        directory = path_of(self.variables["celery_app_secrets_dir"])
        written, kept = [], []
        for member, data in self.members():
            name = member.name.removeprefix("secrets/")
            if name == member.name or not re.fullmatch(r"([\w@-][\w.@-]*/)?[\w.@-]+", name):
                continue
            path = directory / name
            (kept if path.exists() else written).append(name)
            if not path.exists() and not self._task.check_mode:
                path.parent.mkdir(mode=SECRET_DIRECTORY, parents=True, exist_ok=True)
                write_new(path, data.read(), SECRET_FILE)
        return {
            "changed": bool(written),
            "text": f"{len(written)} secrets written to {directory}, {len(kept)} were there and stay. Then: "
            "ansible-playbook playbooks/site.yml; then restore the rest: ansible-playbook playbooks/restore.yml",
        }

    def restored(self) -> dict[str, Any]:
        """Bring the host what belongs to it, and have it restored."""
        made = Path(tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP))
        try:
            part = made / "part.tar"
            write_new(part, b"", SECRET_FILE)
            with tarfile.open(part, "w") as tar:
                for member, data in self.members():
                    _, _, rest = member.name.partition("/")
                    source, _, name = rest.partition("/")
                    if member.name.startswith("hosts/") and self.gets(source, name):
                        member.name = name
                        tar.addfile(member, data)
            self.bring("part.tar", part)
            answer = self.module(state="restored", broker=self.host == self.broker)
        finally:
            shutil.rmtree(made, ignore_errors=True)
            self.module(state="removed")
        return {"changed": True, "counts": answer["counts"], "notes": answer["notes"]}

    def gets(self, source: str, name: str) -> bool:
        """Whether this host gets a file that the backup has of the host `source`."""
        groups, hosts = self.variables["group_names"], self.variables["ansible_play_hosts"]
        if name == "definitions.json":
            return self.host == self.broker
        if name == "redis":
            return "result_store" in groups
        if "/beat-schedule" in name:
            return "scheduler" in groups
        return source == self.host or (source not in hosts and self.host == self.worker)

    def written(self) -> dict[str, Any]:
        """Publish the messages."""
        if self.host != self.worker:
            return {"skipped": True}
        made = Path(tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP))
        try:
            [text] = [data.read() for member, data in self.members() if member.name == MESSAGES]
            write_new(made / MESSAGES, text, SECRET_FILE)
            self.bring(MESSAGES, made / MESSAGES)
            counts = self.command("write")
        finally:
            shutil.rmtree(made, ignore_errors=True)
            self.module(state="removed")
        return {"changed": bool(counts), "queues": counts}

    def compared(self) -> dict[str, Any]:
        """Compare what was restored with what the backup has; fail where they differ."""
        known = self.variables["hostvars"]
        manifest = known[self.host][BEGUN]["manifest"]
        done, wanted = known[self.worker][WRITTEN]["queues"], manifest["messages"]
        hosts = self.variables["ansible_play_hosts"]
        counts = [known[host]["__celery_app_restored"] for host in hosts]
        keys = sum(one["counts"].get("keys in Redis", 0) for one in counts)
        of_keys = sum(one.get("keys in Redis", 0) for one in manifest["hosts"].values())
        notes = [note for one in counts for note in one["notes"]]
        lines = [f"{queue}: {done.get(queue, 0)} of {count} messages" for queue, count in sorted(wanted.items())]
        lines += [f"Redis: {keys} of {of_keys} keys", *notes]
        missing = sum(wanted.values()) - sum(done.values())
        same_keys = keys == of_keys or any("were there already" in note for note in notes)
        lines.append(f"{self.app}: restored {sum(done.values())} messages and {keys} keys from {self.file}")
        if missing or not same_keys:
            return {"failed": True, "msg": "\n".join([*lines, "Not all of it was restored; see above."])}
        return {"text": "\n".join(lines), "line": lines[-1]}


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a text to an archive."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), SECRET_FILE, int(time.time())
    tar.addfile(entry, io.BytesIO(data))


def secrets_of(directory: Path, app: str, generated: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the application's secrets on the control node by name, without the passphrase, which opens all of them.

    Those of an application whose name goes on after this one's (`shop_two`) are not among them.
    """
    apps = {app, *rotation.apps_in(directory)}
    names = [
        path
        for path in sorted(directory.glob(f"{app}_*"))
        if not path.name.endswith("_backup_passphrase") and rotation.owner_of(path.name, apps) == app
    ]
    names += [path for path in generated if path.is_relative_to(directory) and path not in names]
    shared = [directory / name for name in rotation.SHARED]
    tls = sorted((directory / "tls").glob("*"))
    return {str(path.relative_to(directory)): path for path in [*names, *shared, *tls] if path.is_file()}


def summary(manifest: dict[str, Any]) -> str:
    """Return what a backup has, for people."""
    messages, hosts = manifest["messages"], manifest["hosts"]
    total: dict[str, int] = {}
    for counts in hosts.values():
        for kind, number in counts.items():
            total[kind] = total.get(kind, 0) + number
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(total.items()))
    return f"{sum(messages.values())} messages of {len(messages)} queues, {kinds}, of {len(hosts)} hosts"
