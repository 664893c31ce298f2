"""Put new passwords in the place of generated ones on the control node, once for all hosts; or forget the old ones."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import Certificates
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inputs import members_of, stores_of, uses_tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host, declared, trusted
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import not_generated
from ansible_collections.celery_ops.kit.plugins.plugin_utils.rotation import (
    COOKIE,
    REPLICATION,
    Secrets,
    begun,
    ended,
    password_files,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import path_of

PASSWORDS = {"rabbitmq": "celery_app_broker_password", "result_store": "celery_app_result_store_password"}
"""By group, the variable with the application's password there."""
BETWEEN_HOSTS = {COOKIE: members_of, REPLICATION: stores_of}
"""By variable, and file, the hosts that log in to each other with it."""


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node."""

    def act(self) -> dict[str, Any]:
        """Return the release that runs, and what to say of the rotation."""
        variables = self.task_vars
        reader = Reader(variables, self._templar)
        names = reader.kit_hosts
        hosts = [reader.host(name, not_generated) for name in names]
        if self._task.args["state"] != "begun":
            left_out = {each for secrets in {secrets_of(host) for host in hosts} for each in secrets.left_out}
            done = not self._task.check_mode and self.advance(hosts, authorities_of(hosts, reader))
            here = reader.host(variables["inventory_hostname"], not_generated)
            app, directory = here.text("celery_app_name"), here.text("celery_app_secrets_dir")
            return {"changed": done, "text": ended(app, directory, sorted(left_out))}
        refuse_limit(names, variables["ansible_play_hosts_all"])
        release = release_of({name: variables["hostvars"][name] for name in reader.app_hosts})
        return {"release": release, **self.begin(hosts, reader)}

    def begin(self, hosts: list[Host], reader: Reader) -> dict[str, Any]:
        """Renew the generated secrets, and put another CA beside the one there is; in check mode, only say which."""
        files: set[tuple[Path, bool, Secrets]] = set()
        own: set[str] = set()
        for host, (group, variable) in itertools.product(hosts, PASSWORDS.items()):
            if not host.uses_group(group):
                continue
            generated = list(password_files(value_of(host, variable), host.evaluate))
            files |= {(path, group == "rabbitmq", secrets_of(host)) for path in generated}
            own |= set() if generated else {variable}
        for variable, hosts_of in BETWEEN_HOSTS.items():
            members = [host for host in hosts if host.name in hosts_of(reader)]
            files |= {
                ((secrets := secrets_of(host)).directory / variable, False, secrets)
                for host in members
                if variable not in host.given
            }
            own |= {variable for host in members if variable in host.given}
        ordered = sorted(files, key=lambda each: each[0])
        authorities = authorities_of(hosts, reader)
        if self._task.check_mode:
            renewed = [*(path for path, _, _ in ordered), *(each.ca for each in authorities)]
        else:
            renewed = [path for path, of_broker, secrets in ordered if secrets.renew(path, of_broker)]
            renewed += [each.ca for each in authorities if each.begin_rotation()]
        return {"changed": bool(renewed), "text": begun(map(str, renewed), sorted(own))}

    def advance(self, hosts: list[Host], authorities: list[Certificates]) -> bool:
        """Do one of the later steps; say whether it was still to be done."""
        state = self._task.args["state"]
        if state == "signed":
            if not hosts[0].true("celery_app_rotate_trusted"):
                logins = self._task.args.get("logins", [])
                refuse_unknown(logins, [each.ca for each in authorities if each.next_key.exists()])
            return any([each.sign_with_next() for each in authorities])
        if state == "withdrawn":
            return any([each.withdraw_former() for each in authorities])
        ended = [each.end_rotation() for each in authorities]
        return any([*ended, *(secrets.forget() for secrets in {secrets_of(host) for host in hosts})])


def authorities_of(hosts: list[Host], reader: Reader) -> list[Certificates]:
    """Return the CA that the kit has made and that broker or result store use; none where the inventory has its own."""
    users = [host for host in hosts if any(uses_tls(group, host, reader) for group in PASSWORDS)]
    found = {
        (Path(host.need("celery_app_tls_directory")).expanduser(), Path(host.need("celery_app_tls_ca")).expanduser())
        for host in users
        if not {"celery_app_tls_directory", "celery_app_tls_ca"} & set(host.given)
    }
    return [made for directory, ca in sorted(found) if (made := Certificates(directory, ca)).ca_key.exists()]


def refuse_unknown(logins: list[str], files: list[Path]) -> None:
    """Raise OperatorError where a new CA is about to sign, and others log in whose programs may not trust it."""
    if logins and files:
        raise OperatorError(
            f"Others log in to the broker or the result store: {', '.join(logins)}. Their programs may not trust the "
            "new CA, so that it does not sign yet: the certificates are those of before, old and new passwords are "
            f"valid. {', '.join(map(str, files))} has both CAs. For each of their inventories, type: ansible-playbook "
            "-i <inventory> playbooks/site.yml; give the file to clients that are not the kit's. Then complete the "
            "rotation: ansible-playbook playbooks/rotate_secrets.yml -e celery_app_rotate_trusted=yes"
        )


def value_of(host: Host, variable: str) -> Any:
    """Return a variable as the inventory or the role has it, not evaluated."""
    return host.given.get(variable, trusted(declared()[variable].get("default")))


def secrets_of(host: Host) -> Secrets:
    """Return where the control node keeps the secrets of the host's application."""
    return Secrets(path_of(host.text("celery_app_secrets_dir")), host.text("celery_app_name"))


def refuse_limit(names: list[str], playing: list[str]) -> None:
    """Raise OperatorError where `--limit` leaves out hosts whose programs would keep the old password."""
    if left_out := [name for name in names if name not in playing]:
        raise OperatorError(
            f"--limit leaves out {', '.join(left_out)}: programs there would lose the broker when the old "
            "passwords go. Nothing was changed. Type: ansible-playbook playbooks/rotate_secrets.yml"
        )


def release_of(hosts: dict[str, Any]) -> str:
    """Return the release that all hosts run. Raises OperatorError where there is none, or more than one."""
    running = {name: known["__celery_app_history"]["release"] for name, known in hosts.items()}
    if len(set(running.values())) == 1 and all(running.values()):
        return next(iter(running.values()))
    listed = ", ".join(f"{name} {release or 'none'}" for name, release in running.items())
    raise OperatorError(
        f"The hosts do not all run the same release ({listed}): which one should get the new passwords? Nothing was "
        "changed. Deploy first: ansible-playbook playbooks/site.yml"
    )
