"""Make the certificates of a host on the control node, or look at the inventory's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.plugin_utils import tls
from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import ControlNodeAction
from ansible_collections.celery_ops.kit.plugins.plugin_utils.certificates import Certificates
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inputs import (
    rabbitmq_distribution_tls,
    result_store_bind,
)
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import Host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.reader import Reader
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.variables import not_generated

ADDRESSES = ("celery_app_broker_host", "celery_app_result_store_host")
"""Variables by which an inventory names a service's host itself."""


class ActionModule(ControlNodeAction):
    """Runs wholly on the control node."""

    def act(self) -> dict[str, Any]:
        """Return whether a certificate was made, and why."""
        variables = self.task_vars
        reader = Reader(variables, self._templar)
        host = reader.host(variables["inventory_hostname"], not_generated)
        directory, ca = (Path(host.need(f"celery_app_tls_{what}")).expanduser() for what in ("directory", "ca"))
        certificates, is_own = Certificates(directory, ca), tls.DIRECTORY in host.given
        if self._task.args.get("client"):
            return self.client(host, certificates)
        verifies = host.true("celery_app_tls_verify_clients")
        if verifies:  # before a server asks for them
            for each in (reader.host(name, not_generated) for name in reader.app_hosts):
                if not tls.makes_clients(each.given, directory):
                    self.client(each, certificates)
        names = wanted_names(host, reader, variables, is_own)
        try:
            why = certificates.lacks(host.name, names)
            use = "" if why else certificates.lacks_client_use(host.name)
            if use and rabbitmq_distribution_tls(host, reader):
                raise OperatorError(
                    f"Nodes of a cluster show each other their certificates, and {certificates.certificate(host.name)} "
                    f"can't be shown: {use}. Get one that is for clients as well, or leave Erlang's distribution in "
                    "clear text, in the variables of all brokers: rabbitmq_distribution_tls: false"
                )
            if use and verifies and "result_store" in host.groups:
                raise OperatorError(
                    f"celery_app_tls_verify_clients is true, and {certificates.certificate(host.name)}, which the host "
                    f"itself shows to its Redis, can't be shown: {use}. Get one that is for clients as well "
                    "(extendedKeyUsage clientAuth)"
                )
            if why and is_own:
                raise OperatorError(
                    f"{host.name} needs another certificate than {certificates.certificate(host.name)}: {why}. It has "
                    f"to be for {', '.join(names)}, signed by a CA in {ca}, with its key beside it "
                    f"({certificates.key(host.name)}); or leave celery_app_tls_directory out, and the kit makes one."
                )
            if why and not self._task.check_mode:
                certificates.make(host.name, names)
        except ValueError as problem:
            raise OperatorError(str(problem)) from problem
        return {"changed": bool(why), "why": why}

    def client(self, host: Host, certificates: Certificates) -> dict[str, Any]:
        """Return whether what the host's programs show was made, and why. Raises OperatorError."""
        app = host.need("celery_app_name")
        file = tls.client_file(certificates.directory, app, host.name)
        try:
            why = certificates.lacks_client(file)
            if why and not tls.makes_clients(host.given, certificates.directory):
                raise OperatorError(
                    f"The programs of {host.name} can't show {file} to broker and result store: {why}. It has to hold "
                    f"a key and its certificate, for clients (extendedKeyUsage clientAuth), signed by a CA in "
                    f"{certificates.ca}; or write: celery_app_tls_verify_clients: false, without that file"
                )
            # Only beside a CA: all hosts make theirs at once, and would make several.
            if why and not self._task.check_mode and certificates.ca.exists():
                certificates.make_client(file, f"{app}@{host.name}")
        except ValueError as problem:
            raise OperatorError(f"{file}: {problem}") from problem
        return {"changed": bool(why), "why": why}


def wanted_names(host: Host, reader: Reader, variables: dict[str, Any], is_own: bool) -> list[str]:
    """Return what the host's certificate has to be for; of one of the inventory's own, what clients really ask for."""
    known, are_several = reader.hostvars[host.name], len(reader.members("rabbitmq")) > 1
    names = tls.names_of(host.name, known, is_cluster=are_several, is_own=is_own)
    hosts = reader.kit_hosts
    given = [reader.host(name, not_generated).known for name in hosts]
    said = {str(known.get(variable) or "") for known in given for variable in ADDRESSES}
    more = [each for text in sorted(said) for each in text.split(",") if each]
    # Whose address it is, an inventory with one service of a kind leaves no doubt about.
    here = [own_address(result_store_bind(host, reader))] if host.runs_app and "result_store" in host.groups else []
    return list(dict.fromkeys([*names, *here, *([] if are_several or is_own else more)]))
