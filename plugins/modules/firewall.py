#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Ansible module: let only known hosts reach some ports, by nftables rules in a table of the kit's own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Let only known hosts reach some ports
description:
  - Keeps the table C(inet celery_ops) of nftables, its file, and a unit that loads it at boot and whenever
    C(nftables.service) loads its own rules. Nothing else is touched. Other ports stay as they are.
  - Rules of several names stand beside each other; a port that two of them name is open to the peers of both.
options:
  name: {description: "Whose rules these are, such as an application's.", type: str, required: true}
  rules:
    description: The rules. None removes those of that name, and with the last ones the table.
    type: list
    elements: dict
    default: []
    suboptions:
      ports: {description: TCP ports., type: list, elements: int, required: true}
      peers:
        description:
          - By a peer's name, its addresses, networks or names.
          - One that is given a single address keeps others that it was given before, when more was known of it.
        type: dict
        required: true
      optional:
        description: Peers that are left out where their names lead nowhere, instead of failing.
        type: list
        elements: str
        default: []
attributes:
  check_mode: {support: full, description: Says what would change; names are resolved.}
  diff_mode: {support: full, description: Shows the file.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- firewall:
    name: shop
    rules:
      - ports: [5671]
        peers: {worker1: [10.0.0.21], office: [192.0.2.0/24]}
"""
RETURN = r"""
addresses: {description: The addresses and networks that are let in., type: list, elements: str, returned: success}
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.files import read_json, write_atomically, write_json
from ansible_collections.celery_ops.kit.plugins.module_utils.host_faults import reported
from ansible_collections.celery_ops.kit.plugins.module_utils.layout import FILE, KIT_STATE, SYSTEMD_UNITS
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

STATE = KIT_STATE / "firewall"
"""What each name wants: a JSON file each."""
RULES = Path("/etc/celery-ops-firewall.nft")
UNIT = SYSTEMD_UNITS / "celery-ops-firewall.service"
TABLE = ("table", "inet", "celery_ops")
UNIT_TEXT = f"""#
# Ansible managed
#
[Unit]
Description=Ports that only known hosts may reach (celery-ops)
After=nftables.service
# Its rules are gone whenever that one flushes all of them.
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=network-pre.target
Wants=network-pre.target
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES}
ExecReload=/usr/sbin/nft -f {RULES}
ExecStop=-/usr/sbin/nft delete table inet celery_ops

[Install]
WantedBy=sysinit.target
"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Wanted = list[dict[str, Any]]
"""Rules: ports, and peers with their addresses."""


def networks_of(text: str) -> Iterator[Network]:
    """Yield the network or addresses that a text means. Raises OperatorError for a name that leads nowhere."""
    try:
        yield ipaddress.ip_network(text.strip("[]").partition("%")[0], strict=False)
        return
    except ValueError:
        pass
    try:
        found = {info[4][0] for info in socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise OperatorError(
            f"{text} is not an address, and this host finds none for it, so that it could not be let in. Nothing was "
            "changed. Give it an ansible_host that is an address, or a name that resolves here."
        ) from None
    for address in sorted(found):
        yield ipaddress.ip_network(address.partition("%")[0])


def resolved(rules: Wanted, before: Wanted) -> Wanted:
    """Return rules with addresses for names; of a peer that little is known of now, also those from before."""
    known: dict[str, set[str]] = {}
    for rule in before:
        for peer, addresses in rule["peers"].items():
            known.setdefault(peer, set()).update(addresses)
    found = []
    for rule in rules:
        peers = {}
        for peer, addresses in rule["peers"].items():
            try:
                now = {str(network) for address in addresses for network in networks_of(str(address))}
            except OperatorError:
                if peer not in rule.get("optional", []):
                    raise
                continue
            peers[peer] = sorted(now | (known.get(peer, set()) if len(addresses) == 1 else set()))
        found.append({"ports": sorted(rule["ports"]), "peers": peers})
    return found


def text_of(wanted: Iterable[Wanted]) -> str:
    """Return the file for nft: one transaction, which replaces the table. Pure."""
    peers: dict[int, set[str]] = {}
    for rules in wanted:
        for rule in rules:
            for port in rule["ports"]:
                peers.setdefault(port, set()).update(*rule["peers"].values())
    lines = ["#", "# Ansible managed", "#", f"{' '.join(TABLE)} {{}}", f"delete {' '.join(TABLE)}"]
    lines += [
        f"{' '.join(TABLE)} {{",
        "  chain input {",
        "    type filter hook input priority filter - 5; policy accept;",
    ]
    lines += ['    iifname "lo" accept']
    for port, addresses in sorted(peers.items()):
        for version, word in ((4, "ip"), (6, "ip6")):
            if elements := ", ".join(merged(addresses, version)):
                lines.append(f"    tcp dport {port} {word} saddr {{ {elements} }} accept")
        lines.append(f"    tcp dport {port} reject with tcp reset")
    return "\n".join([*lines, "  }", "}", ""])


def merged(addresses: Iterable[str], version: int) -> list[str]:
    """Return the networks of an IP version, without those that lie in others: nft refuses sets that overlap."""
    found = [network for text in addresses if (network := ipaddress.ip_network(text)).version == version]
    return [str(network).removesuffix("/32").removesuffix("/128") for network in ipaddress.collapse_addresses(found)]


class Firewall:
    """nftables and systemd on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def is_loaded(self) -> bool:
        """Whether the table is in the kernel."""
        return self.module.run_command(["nft", "list", *TABLE])[0] == 0

    def check(self, text: str) -> None:
        """Raise OperatorError where nft would not take the rules."""
        rc, _, err = self.module.run_command(["nft", "--check", "--file", "-"], data=text)
        if rc:
            raise OperatorError(
                f"nftables does not take the rules on this host: {err.strip()[:500]}. Nothing was changed. Where "
                "another firewall keeps others from broker and result store, write: celery_app_firewall: false"
            )

    def systemctl(self, *words: str) -> None:
        """Run systemctl. Raises OperatorError."""
        rc, out, err = self.module.run_command(["systemctl", *words])
        if rc:
            raise OperatorError(f"systemctl {' '.join(words)} failed: {(err or out).strip()[:500]}")

    def load(self, text: str) -> None:
        """Write file and unit, and load the rules, now and at boot."""
        write_atomically(RULES, text, FILE)
        write_atomically(UNIT, UNIT_TEXT, FILE)
        self.systemctl("daemon-reload")
        self.systemctl("enable", "--quiet", UNIT.name)
        self.systemctl("reload-or-restart", UNIT.name)
        if not self.is_loaded():  # somebody has flushed all rules, and the unit took itself for active
            self.systemctl("restart", UNIT.name)

    def remove(self) -> None:
        """Remove the table, its unit and its file."""
        if UNIT.exists():
            self.systemctl("disable", "--quiet", "--now", UNIT.name)
            UNIT.unlink()
            self.systemctl("daemon-reload")
        RULES.unlink(missing_ok=True)


def read(path: Path) -> str:
    """Return a file's text; "" where there is none."""
    return path.read_text() if path.exists() else ""


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do it, and return the answer. Raises OperatorError."""
    name, firewall = module.params["name"], Firewall(module)
    file = STATE / f"{name}.json"
    before: Wanted = read_json(file).get("rules", [])
    wanted = resolved(module.params["rules"], before)
    others = [read_json(path).get("rules", []) for path in sorted(STATE.glob("*.json")) if path != file]
    everything = [rules for rules in [*others, wanted] if rules]
    text, now = text_of(everything) if everything else "", read(RULES)
    answer = {
        "addresses": sorted({each for rule in wanted for addresses in rule["peers"].values() for each in addresses}),
        "diff": {"before": now, "after": text, "before_header": str(RULES), "after_header": str(RULES)},
    }
    has_nft = bool(module.get_bin_path("nft"))
    is_right = text == now and wanted == before and (not text or (firewall.is_loaded() and read(UNIT) == UNIT_TEXT))
    if is_right or (module.check_mode and not has_nft):
        return {"changed": not is_right, **answer}
    if text:
        firewall.check(text)
    if not module.check_mode:
        if text:
            firewall.load(text)
        else:
            firewall.remove()
        # At last: by this file the next run tells that the rules are loaded.
        if wanted:
            file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_json(file, {"rules": wanted})
        else:
            file.unlink(missing_ok=True)
    return {"changed": True, **answer}


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "rules": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "ports": {"type": "list", "elements": "int", "required": True},
                    "peers": {"type": "dict", "required": True},
                    "optional": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    with reported(module):
        module.exit_json(**run(module))


if __name__ == "__main__":
    main()
