#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: install certificate, key and CA of a service, or the CA alone for its clients."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_files
short_description: Install certificate, key and CA of a service, or the CA for its clients
description:
  - The options name files on the control node; the action plugin of the same name reads them.
  - Writes C(cert.pem), C(key.pem) and C(ca.pem), or for clients C(client.pem), each in one step. The key is for root
    and one group only, and is in no output.
  - Fails where a certificate of another CA is installed, as clients of another inventory would be cut off, unless told.
options:
  directory: {description: The directory on the host., type: path, required: true}
  ca: {description: The CA., type: str, required: true}
  certificate: {description: The certificate., type: str, default: ""}
  key: {description: Its key., type: str, default: ""}
  client: {description: "What clients show: certificate and key in one file.", type: str, default: ""}
  bundle:
    description: Whether to write C(ca-bundle.pem) as well, the CA and all those that the host trusts.
    type: bool
    default: false
  replace: {description: Whether a certificate of another CA is replaced., type: bool, default: false}
  group: {description: The group that may read the key., type: str, required: true}
attributes:
  check_mode: {support: full, description: Says what would change.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- tls_files:
    directory: /etc/rabbitmq/tls
    ca: inventories/fleet/.secrets/tls/ca.crt
    certificate: inventories/fleet/.secrets/tls/hub.crt
    key: inventories/fleet/.secrets/tls/hub.key
    group: rabbitmq
"""
RETURN = r"""
written: {description: The files that changed., type: list, elements: str, returned: success}
"""

import re
from pathlib import Path

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state import paths
from ansible_collections.celery_ops.kit.plugins.module_utils.host_state.outcome import Outcome
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import FILE, OWN_DIRECTORY, OWN_FILE
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s(.+?)\s-----END CERTIFICATE-----", re.DOTALL)


def certificates_in(text: str) -> set[str]:
    """Return the certificates in a text, whatever is between them."""
    return {"".join(found.split()) for found in PEM.findall(text)}


def main() -> None:
    """Run the module."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "ca": {"type": "str", "required": True},
            "certificate": {"type": "str", "default": ""},
            "key": {"type": "str", "default": "", "no_log": True},
            "client": {"type": "str", "default": "", "no_log": True},
            "bundle": {"type": "bool", "default": False},
            "replace": {"type": "bool", "default": False},
            "group": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    want = module.params
    directory = Path(want["directory"])
    installed = directory / "ca.pem"
    if want["key"] and installed.exists() and not want["replace"]:
        known = certificates_in(installed.read_text())
        if known and not known & certificates_in(want["ca"]):
            module.fail_json(
                msg=f"{directory} has a certificate of another CA, which clients of another inventory may trust. "
                "Nothing was changed. Inventories that use one broker or result store use one "
                f"celery_app_tls_directory; if nobody uses the other CA, type on the host: rm -r {directory}"
            )
    bundle = want["ca"] + (TRUSTED.read_text(errors="replace") if want["bundle"] and TRUSTED.exists() else "")
    # The key before its certificate: a service that reads them in between has neither half.
    files = {
        "key.pem": (want["key"], OWN_FILE),
        "cert.pem": (want["certificate"], FILE),
        # In one file: a client that connects in between has a certificate with its key.
        "client.pem": (want["client"], OWN_FILE),
        "ca.pem": (want["ca"], FILE),
        "ca-bundle.pem": (bundle if want["bundle"] else "", FILE),
    }
    outcome = Outcome(module.check_mode)
    with reported(module):
        paths.directory(directory, paths.Access(OWN_DIRECTORY, "root", want["group"]), outcome)
        for name, (text, mode) in files.items():
            if text:
                access = paths.Access(mode, "root", want["group"])
                paths.file(directory / name, text, access, outcome, hidden=True)
    written = sorted(Path(path).name for path in outcome.paths if Path(path) != directory)
    module.exit_json(changed=bool(outcome.paths), written=written)


if __name__ == "__main__":
    main()
