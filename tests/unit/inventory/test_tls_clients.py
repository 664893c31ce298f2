"""A fleet whose programs show no certificate yet is told so before its broker asks for one."""

from __future__ import annotations

import json

import pytest
from ansible_collections.celery_ops.kit.plugins.action.rollback_target import without_certificate
from ansible_collections.celery_ops.kit.plugins.module_utils.host_requirements import tls_clients
from support.inputs import FLEET, input_of

AMQPS, REDISS = "amqps://shop:secret@hub:5671/shop", "rediss://shop:secret@hub:6379/1"
SHOWN = {"CELERY_OPS_TLS_CLIENT": "/etc/shop/client.pem"}


@pytest.fixture
def says(tmp_path):
    """What is said where a worker runs with this environment, and a release of which this was reported."""

    def of(environment, verify=True, **report):
        release = tmp_path / "releases/0123"
        (release / "app").mkdir(parents=True)
        (release / "release.json").write_text(json.dumps({"inspect": report}))
        (tmp_path / "env-1").write_text("".join(f"{name}='{value}'\n" for name, value in environment.items()))
        guard = f"command=/x/guard --env-file {tmp_path}/env-1 --chdir {release}/app -- celery worker\n"
        (tmp_path / "shop-worker-default-ab12.conf").write_text(f"[program:x]\n{guard}")
        return "".join(tls_clients.problems("shop", verify=verify, conf_d=tmp_path))

    return of


@pytest.mark.parametrize(
    ("environment", "report", "is_refused"),
    [
        ({"CELERY_BROKER_URL": AMQPS, **SHOWN}, {"shows_certificate": True}, False),
        ({"CELERY_BROKER_URL": AMQPS, **SHOWN}, {"shows_certificate": False}, True),  # without the kit's settings
        ({"CELERY_BROKER_URL": AMQPS, **SHOWN}, {}, True),  # a release of an earlier version
        ({"CELERY_BROKER_URL": AMQPS}, {"shows_certificate": True}, True),
        ({"CELERY_BROKER_URL": "amqp://shop:secret@127.0.0.1/shop"}, {}, False),
        ({"CELERY_RESULT_BACKEND": REDISS}, {}, True),
        ({"CELERY_RESULT_BACKEND": REDISS, **SHOWN}, {}, False),
    ],
)
def test_programs_that_show_none_are_named_with_what_to_type(says, environment, report, is_refused):
    said = says(environment, **report)
    assert ("certificate: shop-worker-default-ab12. Broker or result store would refuse them" in said) is is_refused
    assert "secret" not in said


def test_nothing_is_asked_of_a_fleet_that_verifies_no_clients(says):
    assert says({"CELERY_BROKER_URL": AMQPS}, verify=False) == ""


def test_a_rollback_to_a_release_without_one_names_the_hosts():
    def history(**note):
        return {"releases": {"new": {"shows_certificate": True}, "old": {"status": "good", **note}}}

    histories = {"one": history(), "two": history(shows_certificate=True), "three": {"releases": {}}}
    assert without_certificate(histories, "old") == ["one"]
    assert without_certificate(histories, "new") == []


@pytest.mark.parametrize("wanted", [True, False])
def test_the_services_and_the_shovels_are_told(tmp_path, wanted):
    def ask(name, host):
        return input_of(tmp_path, name, FLEET, host, celery_app_tls_verify_clients=wanted)

    assert ask("rabbitmq_tls_verify_clients", "hub") is ask("result_store_tls_verify_clients", "hub") is wanted
    assert ask("rabbitmq_tls_verify_clients", "one") is False, "it has no broker"
    assert ask("preflight_requirements", "one")["verify_clients"] is wanted
    [url] = ask("rabbitmq_move_urls", "one")
    assert ("&certfile=/etc/rabbitmq/tls/cert.pem&keyfile=/etc/rabbitmq/tls/key.pem" in url) is wanted
    assert ask("tls_client", "one") == f"{tmp_path}/secrets/tls/clients/shop-one.pem"
