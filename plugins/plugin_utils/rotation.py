"""The secrets that the kit has generated, in their files on the control node, and their rotation.

While a rotation is under way, the password before is in a file beside the new one: `<file>.old`. Each step can be
repeated, so that a run that was interrupted is completed by the next one.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.splitter import parse_kv
from ansible.template import trust_as_template
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import write_atomically
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import SECRET_FILE
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq import user_names
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import path_of

LENGTH = 40
COOKIE = "rabbitmq_erlang_cookie"
"""The file of the cluster's Erlang cookie."""
REPLICATION = "result_store_replication_password"
"""The file of what the hosts of a result store log in to each other with."""
SHARED = (COOKIE, REPLICATION)
LEFT_OUT = {
    "_backup_passphrase": "opens the backups there are",
    "_flower_broker_password": "only shows tasks",
    "_flower_password": "only shows tasks",
}
"""By the end of its file's name, why a secret of the kit's own is not rotated. Others are the application's."""
PASSWORD = re.compile(
    r"lookup\(\s*['\"](?:ansible\.builtin\.)?password['\"]\s*,\s*(.+?)\s*(?:,\s*\w+\s*=|\)\s*(?:\||\}\}|$))", re.DOTALL
)
"""A password that is generated on the control node and kept in a file; the file, as an expression."""


@dataclass(frozen=True)
class Secrets:
    """The generated secrets of one application, in the directory of the control node."""

    directory: Path
    app: str

    @property
    def broker_user(self) -> Path:
        """The application's user at the broker; missing until the first rotation."""
        return self.directory / f"{self.app}_broker_user"

    @property
    def former(self) -> list[Path]:
        """What a rotation that is under way keeps."""
        names = ("broker_user", "broker_password", "result_store_password")
        paths = [self.directory / name for name in (*(f"{self.app}_{name}" for name in names), *SHARED)]
        return [old(path) for path in paths if old(path).exists()]

    @property
    def left_out(self) -> list[str]:
        """What a rotation leaves as it is, each with the reason."""
        rotated = {*SHARED, *(f"{self.app}_{name}" for name in ("broker_user", "broker_password"))}
        rotated.add(f"{self.app}_result_store_password")
        apps = {self.app, *apps_in(self.directory)}
        files = sorted(path.name for path in self.directory.glob("*") if path.is_file())
        files = [name for name in files if owner_of(name, apps) in ("", self.app)]
        return [
            f"{name} ({next((why for end, why in LEFT_OUT.items() if name.endswith(end)), 'not of broker or store')})"
            for name in files
            if name not in rotated and not name.startswith(".") and not name.endswith(".old")
        ]

    def user(self) -> str:
        """Return the application's user at the broker."""
        return self.broker_user.read_text().strip() if self.broker_user.exists() else self.app

    def renew(self, password: Path, of_broker: bool = False) -> bool:
        """Put a new password in the place of one, which is kept beside it; say whether that was still to be done.

        At the broker the other one of two users gets it. Raises OperatorError where there is no password yet.
        """
        if not password.exists():
            raise OperatorError(f"There is no {password} to rotate. Set up first: ansible-playbook playbooks/site.yml")
        if not old(password).exists():
            if of_broker:
                write_atomically(old(self.broker_user), f"{self.user()}\n", SECRET_FILE)
            write_atomically(old(password), password.read_text(), SECRET_FILE)
        elif old(password).read_text() != password.read_text():
            return False
        if of_broker:
            former = old(self.broker_user).read_text().strip()
            [other] = [name for name in user_names(self.app) if name != former]
            write_atomically(self.broker_user, f"{other}\n", SECRET_FILE)
        characters = string.ascii_letters + string.digits
        write_atomically(password, "".join(secrets.choice(characters) for _ in range(LENGTH)) + "\n", SECRET_FILE)
        return True

    def forget(self) -> bool:
        """Remove what the rotation has kept; say whether there was something."""
        found = self.former
        for path in found:
            path.unlink()
        return bool(found)


def apps_in(directory: Path) -> set[str]:
    """Return the applications that have generated passwords there, as far as their names tell."""
    names = [path.name for path in directory.glob("*_password")]
    of_broker = {name.removesuffix("_broker_password") for name in names if name.endswith("_broker_password")}
    of_store = {
        name.removesuffix("_result_store_password") for name in names if name.endswith("_result_store_password")
    }
    return {app for app in of_broker if not app.endswith("_flower")} | of_store


def owner_of(name: str, apps: Iterable[str]) -> str:
    """Return the application whose file it is, by its name: the longest one that it begins with; "" for none."""
    return max((app for app in apps if name.startswith(f"{app}_")), key=len, default="")


def begun(renewed: Iterable[str], own: Iterable[str]) -> str:
    """Return what to say of a rotation that has begun: which files are new, which variables are the inventory's own."""
    renewed, own = list(renewed), list(own)
    said = [f"New: {', '.join(renewed)}."] if renewed else []
    said += [f"The inventory's own, taken as they are now: {', '.join(own)}."] if own else []
    return " ".join(said) or "A rotation that was interrupted is continued."


def ended(app: str, directory: str, left_out: Iterable[str]) -> str:
    """Return what to say of a rotation that has ended."""
    said = f"{app}: the secrets are rotated, and the old passwords are refused. Back up {directory}."
    left = ", ".join(left_out)
    return f"{said} Not rotated (docs/security.md says how): {left}." if left else said


def old(path: Path) -> Path:
    """Return where the value before is kept."""
    return path.with_name(f"{path.name}.old")


def broker_user(variables: Mapping[str, Any]) -> str:
    """Return the application's user at the broker, as its last rotation has left it."""
    return Secrets(path_of(variables["celery_app_secrets_dir"]), variables["celery_app_name"]).user()


def is_under_way(directory: Any, app: str) -> bool:
    """Tell whether a rotation has begun and was not completed."""
    return bool(Secrets(path_of(directory), app).former)


def password_files(value: Any, evaluate: Callable[[Any], Any]) -> Iterable[Path]:
    """Yield the files in which the control node keeps the passwords that a variable's value generates."""
    for expression in PASSWORD.findall(value) if isinstance(value, str) else ():
        try:
            text = str(evaluate(trust_as_template("{{ " + expression + " }}")))
        except AnsibleError:
            continue
        yield path_of(password_file(text))


def password_file(term: str) -> str:
    """Return the file in a term of the lookup `password`: all but its options (`length=20`), spaces included."""
    first, _, rest = term.partition(" ")
    return " ".join(filter(None, (first, parse_kv(rest).get("_raw_params"))))
