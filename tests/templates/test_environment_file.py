"""The environment file: written on the control node, read alike by the kit's programs and by a shell."""

from __future__ import annotations

import subprocess

import pytest
from ansible.template import trust_as_template
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from celery_ops.launch import env
from hostile import each_newline, each_value


@pytest.fixture
def environment_file(environment):
    """Returns the text of the environment file, the application's variables and secrets given."""

    def text(settings: dict[str, str], secrets: dict[str, str] | None = None) -> str:
        return environment(celery_app_environment=settings, celery_app_secrets=secrets or {})

    return text


@each_value
def test_the_kit_reads_what_was_written(value, environment_file):
    variables = env.parse(environment_file({"SETTING": value}, {"SECRET": value}))
    assert variables["SETTING"] == variables["SECRET"] == value


@each_value
def test_a_shell_reads_what_was_written(value, environment_file, tmp_path):
    file = tmp_path / "env"
    file.write_text(environment_file({"SETTING": value}))
    shell = subprocess.run(
        ["sh", "-euc", f'. {file}; printf "%s" "$SETTING"'], capture_output=True, check=True, cwd=tmp_path
    )
    assert shell.stdout.decode() == value


@each_newline
def test_a_newline_is_refused_and_the_value_not_shown(value, environment_file):
    with pytest.raises(OperatorError, match="SECRET") as refusal:
        environment_file({}, {"SECRET": value})
    assert "evil" not in str(refusal.value)


def test_celery_finds_broker_and_result_store(environment_file):
    variables = env.parse(environment_file({}))
    assert variables["CELERY_BROKER_URL"] == "amqp://petct:of-the-broker@127.0.0.1:5672/petct"
    assert variables["CELERY_RESULT_BACKEND"].startswith("redis://petct:of-the-store@127.0.0.1:6379/")


@pytest.mark.parametrize("password", ["p@ss:w/rd", "100%", "a b", "#?&", "Zürich"])
def test_any_password_survives_the_url(password, environment):
    from kombu.utils.url import parse_url

    variables = env.parse(environment(celery_app_broker_password=password))
    assert parse_url(variables["CELERY_BROKER_URL"])["password"] == password


CLUSTER = ["one", "two", "three"]


def urls_of(environment, host, members=CLUSTER, **variables):
    """The broker's URLs as the programs of a host try them, an address of its own for each host of the inventory."""
    known = {name: {"ansible_host": f"{name}.internal"} for name in {host, *members}}
    groups = {"rabbitmq": members, "worker": [host]}
    names = [group for group, hosts in groups.items() if host in hosts]
    text = environment(inventory_hostname=host, hostvars=known, groups=groups, group_names=names, **variables)
    return env.parse(text)["CELERY_BROKER_URL"].split(";")


@pytest.mark.parametrize(("tls", "scheme", "port"), [(True, "amqps", 5671), (False, "amqp", 5672)])
def test_celery_finds_every_node_of_a_cluster(environment, tls, scheme, port):
    urls = urls_of(environment, "web-1", celery_app_tls=tls)
    assert sorted(urls) == sorted(f"{scheme}://petct:of-the-broker@{name}.internal:{port}/petct" for name in CLUSTER)


TLS = {
    "CELERY_OPS_TLS_CA": "/etc/petct/ca.pem",
    "CELERY_OPS_TLS_CLIENT": "/etc/petct/client.pem",
    "SSL_CERT_FILE": "/etc/petct/ca-bundle.pem",
}
HUB = {"rabbitmq": ["hub"], "result_store": ["hub"], "worker": ["one"], "web": ["hub"]}


def fleet(environment, host, **variables):
    """The environment of a host of a small fleet: a hub, and a worker."""
    known = {"hub": {"ansible_host": "10.0.0.5"}, "one": {}}
    names = [group for group, hosts in HUB.items() if host in hosts]
    given = {"inventory_hostname": host, "hostvars": known, "groups": HUB, "group_names": names, **variables}
    return env.parse(environment(**given))


def test_from_the_second_host_on_connections_are_encrypted_and_verified(environment):
    for host, broker, store in (
        ("one", "amqps://petct:of-the-broker@10.0.0.5:5671/petct", "10.0.0.5"),
        # The broker's own loopback is no network.
        ("hub", "amqp://petct:of-the-broker@127.0.0.1:5672/petct", "127.0.0.1"),
    ):
        found = fleet(environment, host)
        assert found["CELERY_BROKER_URL"] == broker
        assert found["CELERY_RESULT_BACKEND"] == (
            f"rediss://petct:of-the-store@{store}:6379/1?ssl_cert_reqs=required&ssl_ca_certs=/etc/petct/ca.pem"
            "&ssl_check_hostname=true&ssl_certfile=/etc/petct/client.pem"
        )
        assert {name: found.get(name) for name in TLS} == TLS
        assert "CELERY_OPS_TLS_NAME" not in found, "of one broker the URL's host is verified"


def test_with_certificates_of_ones_own_programs_show_the_one_that_is_there_for_them(environment, tmp_path):
    own = {"celery_app_tls_directory": str(tmp_path)}
    hosts = {"hub": {"ansible_host": "10.0.0.5", **own}, "one": own}
    asked = {"inventory_hostname": "one", "hostvars": hosts, "groups": HUB, "group_names": ["worker"], **own}
    assert "client.pem" not in environment(**asked)
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients/petct-one.pem").touch()
    assert environment(**asked).count("/etc/petct/client.pem") == 2


def test_the_brokers_of_a_cluster_are_verified_by_one_name(environment):
    known = {name: {} for name in [*CLUSTER, "web-1"]}
    given = {"inventory_hostname": "web-1", "hostvars": known, "group_names": ["web"]}
    found = env.parse(environment(groups={"rabbitmq": CLUSTER, "web": ["web-1"]}, **given))
    assert found["CELERY_OPS_TLS_NAME"] == "celery-ops-rabbitmq"


def test_without_tls_there_is_nothing_of_it(environment):
    found = fleet(environment, "one", celery_app_tls=False)
    assert found["CELERY_BROKER_URL"].startswith("amqp://petct:of-the-broker@10.0.0.5:5672")
    assert found["CELERY_RESULT_BACKEND"] == "redis://petct:of-the-store@10.0.0.5:6379/1"
    assert not [name for name in found if "TLS" in name or "SSL" in name]
    elsewhere = {"celery_app_broker_url": "amqps://a:b@broker.example.com/v", "celery_app_result_backend": "none"}
    assert "SSL_CERT_FILE" not in fleet(environment, "one", **elsewhere), "a service of somebody else's"


def test_hosts_begin_with_different_nodes_and_a_node_with_itself(environment):
    first = {f"worker-{number}": urls_of(environment, f"worker-{number}")[0] for number in range(20)}
    assert len(set(first.values())) == len(CLUSTER)
    assert first == {host: urls_of(environment, host)[0] for host in first}, "another order would be a new generation"
    assert "@two.internal:" in urls_of(environment, "two")[0]


def test_hosts_that_are_each_a_whole_system_use_their_own_broker(environment):
    groups = {group: ["host1", "two", "three"] for group in ("rabbitmq", "result_store", "worker")}
    text = environment(groups=groups, hostvars={name: {} for name in groups["worker"]})
    assert env.parse(text)["CELERY_BROKER_URL"] == "amqp://petct:of-the-broker@127.0.0.1:5672/petct"


def test_a_password_with_a_semicolon_makes_no_second_url(environment):
    assert len(urls_of(environment, "web", celery_app_broker_password="a;b")) == len(CLUSTER)


def test_the_addresses_of_a_cluster_may_be_given(environment):
    given = environment(celery_app_broker_host="10.0.0.5,10.0.0.6")
    assert env.parse(given)["CELERY_BROKER_URL"] == ";".join(
        f"amqp://petct:of-the-broker@10.0.0.{last}:5672/petct" for last in (5, 6)
    )


FOREIGN = "amqps://shop:s%40fe@broker.example.com:5671/shop"


@pytest.mark.parametrize(
    ("backend", "found"),
    [
        ("redis", "redis://petct:of-the-store@127.0.0.1:6379/1"),
        ("rediss://cache:6379/3", "rediss://cache:6379/3"),
        ("none", "disabled"),
        ("app", None),
    ],
)
def test_celery_finds_the_broker_and_the_result_store_of_somebody_else(backend, found, environment):
    nowhere = trust_as_template("{{ nowhere }}")  # nothing of the kit's own is needed
    given = {"celery_app_broker_url": FOREIGN, "celery_app_result_backend": backend}
    variables = env.parse(environment(celery_app_broker_password=nowhere, **given))
    assert variables["CELERY_BROKER_URL"] == FOREIGN
    assert variables.get("CELERY_RESULT_BACKEND") == found


def test_the_urls_are_there_for_names_of_the_applications_own(environment):
    secrets = {"REDIS_URL": "{{ celery_app_redis_url }}", "AMQP_URL": "{{ celery_app_broker_url_effective }}"}
    secrets = {name: trust_as_template(text) for name, text in secrets.items()}
    variables = env.parse(environment(celery_app_secrets=secrets))
    assert variables["REDIS_URL"] == "redis://petct:of-the-store@127.0.0.1:6379/1"
    assert variables["AMQP_URL"] == variables["CELERY_BROKER_URL"]


@pytest.mark.parametrize("groups", [{}, {"rabbitmq": [], "result_store": []}])
def test_every_variable_can_be_evaluated_where_broker_and_result_store_are_somebody_elses(groups, evaluate):
    """As Ansible does when it validates a role's arguments."""
    given = {"celery_app_broker_url": FOREIGN, "celery_app_result_backend": "app", "groups": groups, "group_names": []}
    for variable in ("celery_app_broker_host", "celery_app_result_store_host", "celery_app_redis_url"):
        assert evaluate(variable, **given)
