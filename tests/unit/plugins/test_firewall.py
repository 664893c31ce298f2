"""The rules for nftables: only the ports that are named, only their peers, one transaction. tests/fleet loads them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.modules import firewall
from ansible_collections.celery_ops.kit.plugins.modules.firewall import resolved, text_of

HUB = [{"ports": [5671], "peers": {"hub": ["10.0.0.5", "fd00::5"], "office": ["192.0.2.0/24"]}}]


def test_only_the_named_ports_are_decided_about_and_the_table_is_replaced_in_one_step():
    lines = [line.strip() for line in text_of([resolved(HUB, [])]).splitlines() if not line.startswith("#")]
    assert lines == [
        "table inet celery_ops {}",
        "delete table inet celery_ops",
        "table inet celery_ops {",
        "chain input {",
        "type filter hook input priority filter - 5; policy accept;",
        'iifname "lo" accept',
        "tcp dport 5671 ip saddr { 10.0.0.5, 192.0.2.0/24 } accept",
        "tcp dport 5671 ip6 saddr { fd00::5 } accept",
        "tcp dport 5671 reject with tcp reset",
        "}",
        "}",
    ]
    assert "flush" not in text_of([HUB])


def test_a_port_that_two_applications_use_is_open_to_the_hosts_of_both():
    other = [{"ports": [5671, 6379], "peers": {"one": ["10.0.0.9/32"]}}]
    text = text_of([resolved(HUB, []), resolved(other, [])])
    assert "tcp dport 5671 ip saddr { 10.0.0.5, 10.0.0.9, 192.0.2.0/24 } accept" in text
    assert "tcp dport 6379 ip saddr { 10.0.0.9 } accept" in text


def test_networks_that_overlap_are_one_set():
    rules = [{"ports": [1], "peers": {"a": ["10.0.0.1", "10.0.0.0/24"], "b": ["10.0.1.0/24"]}}]
    assert "ip saddr { 10.0.0.0/23 } accept" in text_of([rules])


def test_a_name_is_resolved_and_one_that_leads_nowhere_is_refused_by_name():
    [rule] = resolved([{"ports": [1], "peers": {"here": ["localhost"]}}], [])
    assert "127.0.0.1/32" in rule["peers"]["here"]
    with pytest.raises(OperatorError, match=r"^nowhere\.invalid is not an address"):
        resolved([{"ports": [1], "peers": {"gone": ["nowhere.invalid"]}}], [])


def test_a_host_that_a_run_leaves_out_keeps_the_addresses_that_were_known_of_it():
    full = resolved([{"ports": [1], "peers": {"a": ["10.0.0.1", "10.9.0.1"], "b": ["10.0.0.2", "10.9.0.2"]}}], [])
    [rule] = resolved([{"ports": [1], "peers": {"a": ["10.0.0.1"], "b": ["10.0.0.2", "10.9.0.3"]}}], full)
    assert rule["peers"] == {"a": ["10.0.0.1/32", "10.9.0.1/32"], "b": ["10.0.0.2/32", "10.9.0.3/32"]}
    [rule] = resolved([{"ports": [1], "peers": {"b": ["10.0.0.2", "10.0.0.3"]}}], full)
    assert "a" not in rule["peers"], "a host that is gone is let in no more"


def test_a_peer_that_need_not_be_there_is_left_out_where_its_name_leads_nowhere():
    rule = {"ports": [1], "peers": {"gone": ["nowhere.invalid"], "a": ["10.0.0.1"]}, "optional": ["gone"]}
    assert resolved([rule], []) == [{"ports": [1], "peers": {"a": ["10.0.0.1/32"]}}]


class Host:
    """Stands for nft and systemd: what has been loaded, and whether systemd loads it."""

    def __init__(self) -> None:
        self.loaded, self.works, self.check_mode = "", True, False
        self.params = {"name": "shop", "rules": HUB}

    def get_bin_path(self, name: str) -> str:
        return f"/usr/sbin/{name}"

    def run_command(self, words: list[str], data: str = "") -> tuple[int, str, str]:
        if words[:2] == ["nft", "list"]:
            return int(not self.loaded), "", ""
        if words[0] == "systemctl" and words[1] in ("reload-or-restart", "restart", "disable"):
            if not self.works:
                return 1, "", "Transport endpoint is not connected"
            self.loaded = "" if words[1] == "disable" else firewall.RULES.read_text()
        return 0, "", ""


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host with the rules for HUB."""
    for name in ("STATE", "RULES", "UNIT"):
        monkeypatch.setattr(firewall, name, tmp_path / name.lower())
    found = Host()
    assert firewall.run(found)["changed"]
    assert not firewall.run(found)["changed"]
    return found


@pytest.mark.parametrize("peers", [{"hub": ["10.0.0.5"], "new": ["10.0.0.9"]}, {}], ids=["others", "none"])
def test_rules_that_were_not_loaded_are_loaded_by_the_next_run(peers, host):
    other = SimpleNamespace(**vars(host), get_bin_path=host.get_bin_path, run_command=host.run_command)
    other.params = {"name": "crm", "rules": HUB}
    firewall.run(other)
    host.params["rules"] = [{"ports": [5671], "peers": peers}] if peers else []
    host.works = False
    with pytest.raises(OperatorError, match="Transport endpoint is not connected"):
        firewall.run(host)
    host.works = True
    assert firewall.run(host)["changed"]
    assert host.loaded == firewall.RULES.read_text()
    assert ("10.0.0.9" in host.loaded) is bool(peers)
    assert not firewall.run(host)["changed"]
