"""The files in supervisord's conf.d that are ours, and Supervisor's own parser over the whole configuration."""

from __future__ import annotations

import configparser
import glob
import io
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.disk import FULL
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import text_of, write_new
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import mark_of, prefix_of
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.ini import expansions, parsed_file


class NoSpace(OperatorError):
    """A file system is full."""


class ConfDir:
    """The part of conf.d that some prefixes own. Files without their mark are never written or deleted.

    The entry of the generation that was ready last is a regular file. While a generation is not ready yet, and
    when it retires, its entry is a link to a file of the same text in the directory `volatile` under /run: a reboot
    empties that, and supervisord passes over a link that leads nowhere. So one generation runs after a boot.
    What needs space is written ahead by the `stage_...` methods; what follows them only renames.
    """

    def __init__(self, path: Path, prefixes: Iterable[str], volatile: Path) -> None:
        self.path = path
        self.prefixes = list(prefixes)
        self.volatile = volatile

    def file(self, name: str) -> Path:
        """Return where the program's conf file is, or would be."""
        return self.path / f"{name}.conf"

    def owned(self) -> dict[str, str]:
        """Return the texts of our files, also of those behind links, by program name."""
        owned = {}
        for path in sorted(self.path.glob("*.conf")):
            prefix = prefix_of(path.stem, self.prefixes)
            if prefix is not None and path.exists() and mark_of(prefix) in (text := text_of(path)).splitlines():
                owned[path.stem] = text
        return owned

    def provisional(self) -> set[str]:
        """Return the programs whose entry does not outlive a reboot, or has not: it is a link of ours."""
        return {
            path.stem
            for path in self.path.glob("*.conf")
            if prefix_of(path.stem, self.prefixes) is not None and self._leads_to_volatile(path, path.stem)
        }

    def refuse_foreign(self, names: Iterable[str]) -> None:
        """Raise OperatorError if one of the files to be written is there already and isn't ours."""
        ours = {*self.owned(), *self.provisional()}
        for name in names:
            if name not in ours and os.path.lexists(self.file(name)):
                mark = mark_of(prefix_of(name, self.prefixes) or "")
                raise OperatorError(
                    f"{self.file(name)} exists and lacks the line {mark!r}: it is not ours "
                    f"to replace. Look at it, then: rm {self.file(name)}"
                )

    def has(self, name: str, text: str) -> bool:
        """Return whether the program's entry holds exactly this text."""
        return self.file(name).exists() and text_of(self.file(name)) == text

    def put(self, name: str, text: str | None) -> None:
        """Write the file in one step, or delete it when there is no text."""
        if text is None:
            self.file(name).unlink(missing_ok=True)
            self._volatile(name).unlink(missing_ok=True)
        else:
            self.stage_file(name, text)
            self.make_lasting(name)

    def stage_file(self, name: str, text: str) -> None:
        """Write the regular file that `make_lasting` puts in place."""
        _write(self._draft(name, "new"), text)

    def stage_link(self, name: str, text: str) -> None:
        """Write the link that `make_volatile` puts in place, and the file that it leads to."""
        for directory in (*reversed(self.volatile.parents), self.volatile):
            if not directory.exists():
                directory.mkdir()
                directory.chmod(0o755)
        if not self._volatile(name).exists() or text_of(self._volatile(name)) != text:
            _write(self._volatile(name), text)
        os.utime(self._volatile(name), (0, 0))  # not told to stop yet
        draft = self._draft(name, "link")
        draft.unlink(missing_ok=True)
        draft.symlink_to(self._volatile(name))

    def stage_backup(self, name: str) -> None:
        """Keep the regular file as it is for `restore`, whatever becomes of its entry."""
        backup = self._draft(name, "old")
        backup.unlink(missing_ok=True)
        if self.file(name).is_file() and not self.file(name).is_symlink():
            backup.hardlink_to(self.file(name))

    def make_lasting(self, name: str) -> None:
        """Make the entry the regular file that was staged."""
        self._draft(name, "new").replace(self.file(name))
        self._volatile(name).unlink(missing_ok=True)

    def make_lasting_in_place_of(self, old: str, name: str, text: str) -> None:
        """Make the entry a regular file without new space: that of an old generation, whose backup was staged."""
        draft = self._draft(old, "old")
        with draft.open("r+b") as file:
            file.truncate(file.write(text.encode("utf-8", "surrogateescape")))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.file(name))
        self._volatile(name).unlink(missing_ok=True)

    def make_volatile(self, name: str) -> None:
        """Make the entry the link that was staged."""
        self._draft(name, "link").replace(self.file(name))

    def restore(self, name: str, text: str | None, *, lasting: bool) -> bool:
        """Make the entry hold what it held before; return whether it did not. Writes only if it must."""
        if text is None:
            self.put(name, None)
            return True
        if self.has(name, text) and self.file(name).is_symlink() != lasting:
            return False
        if not lasting:
            self.stage_link(name, text)
            self.make_volatile(name)
        elif self._draft(name, "old").exists():
            self._draft(name, "old").replace(self.file(name))
        else:
            self.put(name, text)
        return True

    def mark_told(self, name: str) -> None:
        """Remember when the program was told to stop, for as long as this boot lasts."""
        if self._volatile(name).exists():
            os.utime(self._volatile(name))

    def told_at(self, name: str) -> float:
        """Return the Unix time at which it was told to stop: now, if that is not known."""
        with suppress(OSError):
            return self._volatile(name).stat().st_mtime or time.time()
        return time.time()

    def retiring(self) -> set[str]:
        """Return the programs that were told to stop since this boot."""
        told = set()
        for name in self.provisional():
            with suppress(OSError):
                if self._volatile(name).stat().st_mtime:
                    told.add(name)
        return told

    def sweep(self) -> None:
        """Delete what an interrupted run left of its preparations."""
        for path in self.path.glob(".*.conf.*"):
            name, _, kind = path.name[1:].rpartition(".conf.")
            prefix = prefix_of(name, self.prefixes)
            if prefix is None or kind not in ("new", "link", "old"):
                continue
            if self._leads_to_volatile(path, name) or (
                not path.is_symlink() and mark_of(prefix) in text_of(path).splitlines()
            ):
                path.unlink()
        for path in self.volatile.glob("*.conf"):
            if prefix_of(path.stem, self.prefixes) is not None and path.stem not in self.provisional():
                path.unlink()

    def _volatile(self, name: str) -> Path:
        return self.volatile / f"{name}.conf"

    def _draft(self, name: str, kind: str) -> Path:
        return self.path / f".{name}.conf.{kind}"  # not matched by supervisord's *.conf

    def _leads_to_volatile(self, path: Path, name: str) -> bool:
        return path.is_symlink() and path.readlink() == self._volatile(name)


class Parser:
    """Supervisor's own parser over the whole configuration, with files of ours put in place only for it."""

    def __init__(self, conf: Path, conf_dir: ConfDir, environment: Mapping[str, str]) -> None:
        self.conf = conf.absolute()
        self.conf_dir = conf_dir
        self.environment = environment

    def check(self, texts: Mapping[str, str | None], culprits: Iterable[str]) -> dict[str, Any]:
        """Parse everything with these texts in place (None: no such file); return the groups by name.

        Raises OperatorError naming the one of `culprits` that the parser refuses, or the file elsewhere.
        """
        bare = dict.fromkeys([*self.conf_dir.owned(), *texts])
        try:
            others = self.groups(bare)
        except ValueError as error:
            raise OperatorError(
                f"supervisord's configuration is broken, and not by a file of ours: {error}. Nothing was "
                f"changed. Correct it, check with: supervisorctl reread"
            ) from None
        for name in culprits:
            if name in others:
                raise OperatorError(
                    f"{name} is defined by a file that is not ours as well. Find it: "
                    f"grep -rn {name} {self.conf} {self.conf_dir.path}"
                )
            try:
                group = self.groups({**bare, name: texts[name]}).get(name)
            except ValueError as error:
                raise OperatorError(
                    f"{name}: supervisor refuses its conf, nothing was changed. Its parser says: {error}"
                ) from None
            if group is None:
                raise OperatorError(
                    f"{self.conf} does not include {self.conf_dir.file(name)}. In its section [include] "
                    f"write: files = {self.conf_dir.path}/*.conf"
                )
            if [process.name for process in group.process_configs] != [name]:
                raise OperatorError(
                    f"{name}: its conf must make one process of that name; remove numprocs and process_name."
                )
        try:
            return self.groups(texts)
        except ValueError as error:
            raise OperatorError(
                f"an older file of ours is refused by supervisor's parser: {error}. Nothing was changed. "
                f"Delete that file (its program runs on, the next run retires it)."
            ) from None

    def groups(self, texts: Mapping[str, str | None]) -> dict[str, Any]:
        """Parse once; raise ValueError with the parser's words."""
        from supervisor.options import ServerOptions

        options = ServerOptions()
        options.here = str(self.conf.parent)
        options.environ_expansions = {f"ENV_{key}": value for key, value in self.environment.items()}
        overlay = {self.conf_dir.file(name): text for name, text in texts.items()}
        with tempfile.TemporaryDirectory(prefix="supervisor-check-") as directory:
            files = []
            for path in self._included(overlay):
                if path in overlay:
                    path = Path(directory, path.name)
                    _write(path, overlay[self.conf_dir.path / path.name] or "")
                files.append(_as_pattern(path))
            # The parser lets the last [include] win: name each file, so that nothing else need be copied.
            include = f"\n[include]\nfiles = {' '.join(files)}\n"
            options.configfile = io.StringIO(text_of(self.conf) + include)
            try:
                options.process_config(do_usage=False)
            except Exception as error:  # whatever it is, it would stop supervisord as well
                raise ValueError(str(error).replace(directory, str(self.conf_dir.path))) from None
            finally:
                options.poller.close()
        return {group.name: group for group in options.process_group_configs}

    def _included(self, overlay: Mapping[Path, str | None]) -> list[Path]:
        try:
            files = parsed_file(self.conf).get("include", "files", fallback="")
            patterns = (files % expansions(self.conf, self.environment)).split()
        except (configparser.Error, KeyError, TypeError) as error:
            raise ValueError(f"{self.conf}: {error}") from None
        found: list[Path] = []
        for pattern in patterns:
            pattern = os.path.normpath(self.conf.parent / pattern)
            new = {path for path, text in overlay.items() if text is not None and fnmatch(str(path), pattern)}
            old = {Path(path) for path in glob.glob(pattern)} - set(overlay)  # noqa: PTH207 as supervisor does
            found += sorted(new | old)
        return found


def _as_pattern(path: Path) -> str:
    """Write a path so that supervisor's splitting, expanding and globbing finds that file again."""
    return re.sub(r"\s", "?", glob.escape(str(path))).replace("%", "%%")


def _write(path: Path, text: str) -> None:
    """Write a new file, to the disk. Raises OperatorError or NoSpace with its name, and leaves nothing half written."""
    try:
        write_new(path, text)
    except OSError as error:
        kind = NoSpace if error.errno in FULL else OperatorError
        raise kind(
            f"{path} can't be written: {error.strerror}. Look at its file system: df -h {path.parent} "
            f"(and df -i {path.parent})"
        ) from None
