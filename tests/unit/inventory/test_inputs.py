"""What the playbooks give to the roles that know nothing of Celery: read from real inventories."""

from __future__ import annotations

import re
from functools import partial

import pytest
from ansible.errors import AnsibleError
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import url_host
from ansible_collections.celery_ops.kit.plugins.plugin_utils.tls import NAME
from support.inputs import ALONE, FLEET, input_of


@pytest.fixture
def ask(tmp_path):
    """A function that returns what the lookup says of an input on a host of an inventory."""
    return partial(input_of, tmp_path)


def test_the_services_are_told_of_the_application(ask, tmp_path):
    given = {
        "celery_app_broker_password": "of-the-broker",
        "celery_app_result_store_password": "{{ 'of-the-' ~ 'store' }}",
    }
    [application] = ask("rabbitmq_applications", **given)
    assert (application["name"], application["password"]) == ("shop", "of-the-broker")
    assert "celeryev" in application["dead_letter_except"]
    assert ask("result_store_applications", **given) == [{"name": "shop", "password": "of-the-store", "database": 1}]
    assert not (tmp_path / "secrets").exists()


def test_a_password_that_is_missing_is_generated_and_kept(ask, tmp_path):
    [application] = ask("rabbitmq_applications")
    [kept] = (tmp_path / "secrets").iterdir()
    assert (kept.name, kept.read_text().strip()) == ("shop_broker_password", application["password"])
    assert ask("rabbitmq_applications") == [application]


@pytest.mark.parametrize("group", ["rabbitmq", "result_store"])
def test_a_service_listens_for_others_only_where_others_use_it(ask, group):
    assert ask(f"{group}_bind") == "127.0.0.1"
    assert ask(f"{group}_bind", FLEET, "hub") == "0.0.0.0"
    assert ask(f"{group}_bind", FLEET, "hub", **{f"{group}_bind": "10.0.0.5"}) == "10.0.0.5"


@pytest.mark.parametrize(
    ("bind", "broker", "store"),
    [
        ("0.0.0.0", "127.0.0.1:5672", "127.0.0.1:6379"),
        ("10.0.0.5", "10.0.0.5:5672", "10.0.0.5:6379"),
        ("127.0.0.1", "127.0.0.1:5672", "127.0.0.1:6379"),
        ("::1", "[::1]:5672", "[::1]:6379"),
        ("::", "[::1]:5672", "[::1]:6379"),
        ("2001:db8::5", "[2001:db8::5]:5672", "[2001:db8::5]:6379"),
        ("{{ lan }}", "10.0.0.7:5672", "10.0.0.7:6379"),
    ],
)
@pytest.mark.parametrize("groups", [ALONE, FLEET], ids=["alone", "fleet"])
def test_a_host_reaches_its_own_services_where_they_listen(ask, groups, bind, broker, store):
    given = {"rabbitmq_bind": bind, "result_store_bind": bind, "lan": "10.0.0.7"}
    host = groups["rabbitmq"][0]
    own = partial(ask, groups=groups, host=host, flower_host=host, celery_app_tls=False, **given)
    assert own("flower_broker_url").partition("@")[2] == f"{broker}/shop"
    known = own("services_in_force")
    [address] = known["addresses"]["result_store"]
    assert f"{url_host(address)}:6379" == store
    assert known["hosts"].get(address, known["here"]) == host


def test_a_host_with_an_ipv6_address_is_reached_there_by_others_and_by_itself(ask):
    own = partial(ask, groups=FLEET, host="hub", flower_host="hub", celery_app_tls=False, ansible_host="2001:db8::5")
    assert (own("rabbitmq_bind"), own("result_store_bind")) == ("::", "::")
    assert own("flower_broker_url").endswith("@[::1]:5672/shop")
    known = own("services_in_force")
    assert known["addresses"] == {group: ["::1"] for group in known["addresses"]} and known["hosts"]["::1"] == "hub"


def test_a_broker_with_tls_has_its_plain_port_on_loopback_whatever_it_listens_on(ask):
    url = ask("flower_broker_url", FLEET, "hub", flower_host="hub", rabbitmq_bind="10.0.0.5")
    assert url.startswith("amqp://") and url.endswith("@127.0.0.1:5672/shop")


def test_the_port_of_tls_is_at_the_address_that_the_broker_listens_on(ask):
    said = ask("preflight_requirements", FLEET, "hub", rabbitmq_bind="2001:db8:5672::1")["listeners"]
    assert said["rabbitmq_tls_port"] == "2001:db8:5672::1:5671"


def test_a_broker_waits_for_the_longest_task_of_any_host(ask):
    programs = [{"name": "default", "queues": ["a"]}, {"name": "long", "queues": ["b"], "time_limit": 100_000}]
    assert ask("rabbitmq_consumer_timeout") == 86_400
    assert ask("rabbitmq_consumer_timeout", FLEET, "hub", {"two": {"celery_worker_programs": programs}}) == 200_000
    assert ask("rabbitmq_consumer_timeout", rabbitmq_consumer_timeout=7200) == 7200


def test_a_broker_that_waits_longer_for_another_application_goes_on_to(ask):
    assert ask("rabbitmq_consumer_timeout", __preflight_host={"consumer_timeout": 100_000}) == 100_000
    assert ask("rabbitmq_consumer_timeout", __preflight_host={"consumer_timeout": 3600}) == 86_400
    assert ask("preflight_requirements", __preflight_host={"consumer_timeout": 100_000})["consumer_timeout"] == 86_400


def test_systemd_gives_the_programs_of_a_host_the_time_that_their_tasks_may_take(ask):
    assert ask("supervisor_stop_timeout") == 3600
    assert ask("supervisor_stop_timeout", celery_app_task_time_limit=7200) == 4 * 7230
    assert ask("supervisor_stop_timeout", celery_app_task_time_limit="900", supervisor_stop_timeout=5000) == 5000


def test_services_of_a_host(ask):
    assert ask("services") == ["rabbitmq", "result_store", "supervisor"]
    assert ask("services", FLEET, "one") == ["supervisor"]


def test_results_may_move_where_the_inventory_names_the_database(ask):
    assert ask("may_move_results") is False
    assert ask("may_move_results", celery_app_result_store_database=2) is True


def test_a_name_that_is_no_input_and_a_value_that_is_none(ask):
    with pytest.raises(AnsibleError, match="there is no input rabbitmq; available: rabbitmq_applications"):
        ask("rabbitmq")
    with pytest.raises(AnsibleError, match="celery_app_result_store_database"):
        ask("result_store_applications", celery_app_result_store_database="{{ undefined_here }}")


def test_while_passwords_are_rotated_the_store_keeps_the_ones_before(ask, tmp_path):
    assert ask("result_store_keep_former") is False
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets/shop_result_store_password.old").write_text("before")
    assert ask("result_store_keep_former") is True


def test_the_brokers_user_is_the_one_that_the_last_rotation_has_left(ask, tmp_path):
    [application] = ask("rabbitmq_applications")
    assert (application["user"], ask("former_users")) == ("shop", ["shop-2"])
    (tmp_path / "secrets/shop_broker_user").write_text("shop-2\n")
    [application] = ask("rabbitmq_applications")
    assert (application["user"], ask("former_users")) == ("shop-2", ["shop"])
    assert ask("former_users", celery_app_broker_user="shop") == ["shop-2"]


@pytest.mark.parametrize(
    ("given", "verifies"),
    [({}, True), ({"celery_app_tls_directory": "/own"}, False), ({"celery_app_tls": False}, False)],
)
def test_the_shovels_of_a_move_verify_the_new_broker_where_its_certificate_has_their_name(ask, given, verifies):
    moves = partial(ask, groups={**FLEET, "leaves": ["old"]}, host="old", **given)
    [url] = moves("rabbitmq_move_urls")
    _, _, options = url.partition("?")
    said = "cacertfile=/etc/rabbitmq/celery-ops-move-shop.pem&verify=verify_peer&server_name_indication=" + NAME
    assert bool(moves("rabbitmq_move_ca")) == verifies
    if verifies:
        assert options == said
    else:
        assert options == ("verify=verify_none" if url.startswith("amqps") else "")


def test_those_to_a_cluster_do_with_certificates_of_the_inventorys_own(ask):
    urls = ask("rabbitmq_move_urls", groups={**CLUSTER, "leaves": ["old"]}, host="old", celery_app_tls_directory="/own")
    assert len(urls) == 3
    assert all("verify=verify_peer" in url for url in urls)


CLUSTER = {**FLEET, "rabbitmq": ["hub", "b2.example.com", "b3"]}
ADDRESSES = {"hub": "10.0.0.1", "b2.example.com": "10.0.0.2", "b3": "10.0.0.3"}
PLACES = {name: {"ansible_host": address} for name, address in ADDRESSES.items()}


def test_three_brokers_are_told_of_each_other(ask, tmp_path):
    nodes = ask("rabbitmq_cluster_nodes", CLUSTER, "b3", PLACES)
    assert [node["name"] for node in nodes] == ["rabbit@hub", "rabbit@b2", "rabbit@b3"]
    assert [node["address"] for node in nodes] == list(ADDRESSES.values())
    assert ask("rabbitmq_node_name", CLUSTER, "b2.example.com", PLACES) == "rabbit@b2"
    assert ask("rabbitmq_distribution_bind", CLUSTER, "b2.example.com", PLACES) == "10.0.0.2"
    assert ask("rabbitmq_bind", CLUSTER, "b3", PLACES) == "0.0.0.0"
    cookie = ask("rabbitmq_erlang_cookie", CLUSTER, "b3", PLACES)
    kept = tmp_path / "secrets/rabbitmq_erlang_cookie"
    assert (kept.read_text().strip(), kept.stat().st_mode & 0o777, len(cookie)) == (cookie, 0o600, 40)
    assert ask("rabbitmq_erlang_cookie", CLUSTER, "hub", PLACES) == cookie


PLACED = {
    "plain": {name: {"ansible_host": address} for name, address in ADDRESSES.items()},
    "of another variable": {
        name: {"ansible_host": "{{ private_ip }}", "private_ip": address} for name, address in ADDRESSES.items()
    },
    "of a table": {
        name: {"ansible_host": "{{ places[inventory_hostname] }}", "places": ADDRESSES} for name in ADDRESSES
    },
    "by its old name": {name: {"ansible_ssh_host": address} for name, address in ADDRESSES.items()},
}


@pytest.mark.parametrize("way", PLACED)
def test_addresses_are_what_ansible_takes_them_for(way, ask):
    nodes = ask("rabbitmq_cluster_nodes", CLUSTER, "b3", PLACED[way])
    assert [node["address"] for node in nodes] == list(ADDRESSES.values())
    assert ask("rabbitmq_distribution_bind", CLUSTER, "b2.example.com", PLACED[way]) == "10.0.0.2"
    _, erlang = ask("firewall_rules", CLUSTER, "b3", PLACED[way])
    assert [peer[0] for peer in erlang["peers"].values()] == list(ADDRESSES.values())
    known = ask("services_in_force", CLUSTER, "one", PLACED[way], celery_app_broker_host="10.0.0.2")["hosts"]
    assert {address: known[address] for address in ADDRESSES.values()} == {v: k for k, v in ADDRESSES.items()}


@pytest.mark.parametrize("said", [True, "true", "{{ stores == 'several' }}"])
def test_a_store_of_several_hosts_may_be_asked_for_by_a_template(said, ask):
    stores = FLEET | {"result_store": list(ADDRESSES)}
    given = {"celery_app_result_store_sentinel": said, "stores": "several"}
    assert ask("result_store_nodes", stores, "b3", PLACES, **given) == list(ADDRESSES.values())


def test_a_service_is_somebody_elses_only_where_its_address_is_one(ask, tmp_path):
    ca = f"{tmp_path}/secrets/tls/ca.crt"
    ours = {"celery_app_broker_url": "{{ theirs | default('') }}", "celery_app_result_backend": "{{ backend }}"}
    assert ask("tls_ca", FLEET, "one", backend="redis", **ours) == ca
    assert ask("tls_ca", FLEET, "one", backend="none", theirs="amqp://x@y/z", **ours) == ""
    made = "amqp://shop:{{ lookup('password', celery_app_secrets_dir ~ '/of_theirs') }}@mq/shop"
    assert ask("tls_ca", FLEET, "one", celery_app_broker_url=made, celery_app_result_backend="none") == ""
    assert not (tmp_path / "secrets").exists()


def test_a_broker_that_is_alone_is_told_of_nobody_and_no_cookie_is_made(ask, tmp_path):
    names = ("rabbitmq_cluster_nodes", "rabbitmq_node_name", "rabbitmq_distribution_bind", "rabbitmq_erlang_cookie")
    assert [ask(name, FLEET, "hub") for name in names] == [[], "rabbit@localhost", "127.0.0.1", ""]
    assert not (tmp_path / "secrets").exists()


def test_a_node_keeps_the_name_that_the_inventory_gives_it(ask):
    places = PLACES | {"hub": {"ansible_host": "10.0.0.1", "rabbitmq_node_name": "rabbit@localhost"}}
    assert ask("rabbitmq_cluster_nodes", CLUSTER, "b3", places)[0] == {
        "name": "rabbit@localhost",
        "address": "10.0.0.1",
    }


def test_one_host_has_no_tls_and_a_fleet_has(ask, tmp_path):
    for name in ("rabbitmq_tls_certificate", "result_store_tls_key", "tls_ca"):
        assert ask(name) == ""
        assert ask(name, FLEET, "one", celery_app_tls=False) == ""
    assert ask("rabbitmq_tls_certificate", FLEET, "hub") == f"{tmp_path}/secrets/tls/hub.crt"
    assert ask("result_store_tls_key", FLEET, "hub") == f"{tmp_path}/secrets/tls/hub.key"
    assert ask("rabbitmq_tls_certificate", FLEET, "one") == "", "it is no broker"
    assert ask("tls_ca", FLEET, "one") == f"{tmp_path}/secrets/tls/ca.crt"
    own = {"celery_app_tls_directory": "/pki", "celery_app_tls_ca": "/pki/root.pem"}
    assert ask("rabbitmq_tls_certificate", FLEET, "hub", **own) == "/pki/hub.crt"
    assert ask("tls_ca", FLEET, "one", **own) == "/pki/root.pem"


def test_with_tls_the_plain_port_is_on_loopback_alone(ask):
    said = ask("preflight_requirements", FLEET, "hub")["listeners"]
    assert (said["rabbitmq_port"], said["rabbitmq_tls_port"]) == ("127.0.0.1:5672", "0.0.0.0:5671")
    assert "rabbitmq_tls_port" not in ask("preflight_requirements")["listeners"]


def test_a_firewall_lets_in_the_hosts_of_the_inventory_and_none_is_needed_on_one_host(ask):
    assert ask("firewall_rules") == []
    assert ask("changes_firewall") is False
    assert ask("firewall_rules", FLEET, "one") == [], "it serves nobody"
    broker, store = ask("firewall_rules", FLEET, "hub", {"one": {"ansible_host": "10.0.0.21"}})
    assert (broker["ports"], store["ports"]) == ([5671], [6379])
    assert broker["peers"] == store["peers"] == {"hub": ["hub"], "one": ["10.0.0.21"], "two": ["two"]}
    more = ask("firewall_rules", FLEET, "hub", celery_app_tls=False, celery_app_firewall_allow=["192.0.2.0/24"])
    assert more[0]["ports"] == [5672]
    assert more[0]["peers"]["celery_app_firewall_allow"] == ["192.0.2.0/24"]
    assert ask("firewall_rules", FLEET, "hub", celery_app_firewall=False) == []
    assert ask("changes_firewall", FLEET, "hub", celery_app_firewall=False) is True
    assert broker["optional"] == []
    [moved] = ask("firewall_rules", FLEET | {"spare": ["old"]}, "hub", celery_app_result_backend="none")[:1]
    assert ("old" in moved["peers"], moved["optional"]) == (True, ["old"])
    three = FLEET | {"rabbitmq": ["b1", "b2", "b3"]}
    _, erlang = ask("firewall_rules", three, "b1")
    assert (erlang["ports"], set(erlang["peers"])) == ([4369, 25672], {"b1", "b2", "b3"})


@pytest.mark.parametrize("control", [False, True])
def test_flowers_user_hears_events_and_asks_workers_only_where_it_may_give_commands(ask, control):
    assert ask("rabbitmq_applications")[0]["limited_users"] == []
    [user] = ask("rabbitmq_applications", flower_host="one", flower_control=control)[0]["limited_users"]
    queue, reply = "celeryev.flower.6fa4", "6fa4.reply.celery.pidbox"
    names = (
        queue,
        reply,
        "celeryev",
        "celery.pidbox",
        "shop",
        "shop.dead",
        "",
        "amq.default",
        f"x{queue}",
        f"{queue}.x",
    )
    allowed = {what: {name for name in names if re.search(user[what], name)} for what in ("configure", "write", "read")}
    assert user["name"] == "flower-shop"
    assert allowed == {
        "configure": {queue, *([reply, "celery.pidbox"] if control else [])},
        "write": {queue, *([reply, "celery.pidbox"] if control else [])},
        "read": {queue, "celeryev", *([reply, "celery.pidbox"] if control else [])},
    }


def test_flower_has_the_applications_urls_with_its_own_user_and_passwords_only_where_it_runs(ask, tmp_path):
    assert [ask(f"flower_{name}") for name in ("broker_url", "password", "broker_ca", "broker_name")] == [
        "",
        "",
        "",
        "",
    ]
    assert not (tmp_path / "secrets").exists()
    url = ask("flower_broker_url", FLEET, "one", flower_host="one", celery_app_broker_password="s3cr3t/@x")
    password = (tmp_path / "secrets/shop_flower_broker_password").read_text().strip()
    assert url == f"amqps://flower-shop:{password}@hub:5671/shop"
    assert ask("flower_broker_ca", FLEET, "one", flower_host="one") == str(tmp_path / "secrets/tls/ca.crt")
    assert ask("flower_broker_name", FLEET, "one", flower_host="one") == ""
    cluster = FLEET | {"rabbitmq": ["r1", "r2", "r3"]}
    assert len(ask("flower_broker_url", cluster, "one", flower_host="one").split(";")) == 3
    assert ask("flower_broker_name", cluster, "one", flower_host="one") == "celery-ops-rabbitmq"
    own = {"celery_app_broker_url": "amqp://shop:x@mq/shop", "flower_broker_url": "amqp://looker:y@mq/shop"}
    assert ask("flower_broker_url", flower_host="one", **own) == "amqp://looker:y@mq/shop"
    assert len(ask("flower_password", flower_host="one")) == 40
