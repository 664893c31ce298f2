"""What an uninstall says that it removes from a host, and what keeps services from going with it."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.uninstall import uninstall

CRM = ["RabbitMQ: user crm", "Supervisor: /etc/supervisor/conf.d/crm.conf"]


def of(services="no", others=(), broker=(), store=(), runs=("rabbitmq", "result_store")):
    return uninstall(
        {
            "inventory_hostname": "h1",
            "preflight_app": "shop",
            "preflight_services": list(runs),
            "preflight_uninstall_services": services,
            "preflight_left_out": {"rabbitmq": list(broker), "result_store": list(store)},
            "__preflight_users": {"others": list(others), "from_kit": ["rabbitmq", "supervisor"]},
        }
    )


@pytest.mark.parametrize("services", ["no", "yes"])
def test_what_else_there_is_keeps_services_from_going_and_an_application_never(services):
    assert of(services)["wrong"] == ""
    wrong = of(services, others=CRM, broker=["w1"])["wrong"]
    assert bool(wrong) is (services == "yes")
    assert wrong.splitlines()[1:3] == ([f"- {other}" for other in CRM] if wrong else [])
    assert "uninstall_services=no" in wrong or not wrong


def test_hosts_that_limit_leaves_out_keep_their_services_and_what_they_have_in_them():
    said = of("yes", broker=["w1"], store=["w1", "w2"])
    assert "h1 serves w1, w2, which --limit leaves out" in said["wrong"]
    said = of(broker=["w1"])
    assert said["wrong"] == ""
    assert "its Redis user with its results. Its tasks and results stay for w1. RabbitMQ" in said["text"]
    assert "vhost" not in said["text"]


def test_what_will_be_removed_is_named():
    assert of()["text"] == (
        "Will be removed: the application shop - its programs, its directories (/srv/shop, /etc/shop, /var/log/shop, "
        "/var/lib/shop), its system user, its vhost with all tasks in it, its Redis user with its results. RabbitMQ, "
        "Redis and Supervisor stay (uninstall_services=yes removes them too)."
    )
    worker = of("yes", runs=["supervisor"])["text"]
    assert "vhost" not in worker and "Redis" not in worker
    assert worker.endswith("Also rabbitmq, supervisor and the other packages that the kit installed, with all data.")
