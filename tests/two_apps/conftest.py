"""One host with the reference application (from converge), the shop beside it, and a program of somebody else's."""

import pytest
from support.control import ROOT, Inventory
from support.host import Host, scenario_hosts

SHOP = {
    "celery_app_name": "shop",
    "celery_app_source": str(ROOT / "tests/apps/shop"),
    "celery_app_requirements": "pyproject.toml",
    "rabbitmq_consumer_timeout": 200_000,
}
CRM = "[program:crm]\ncommand=/bin/sleep 100000\n"


@pytest.fixture(scope="session")
def petct():
    """The host, and the reference application on it."""
    return scenario_hosts()[0]


@pytest.fixture(scope="session")
def alone():
    """Another host, which is in none of the kit's groups."""
    return scenario_hosts()[1]


@pytest.fixture(scope="session")
def inventory(petct, tmp_path_factory):
    """The shop's own inventory, accepted on the host, which has a program of somebody else's as well."""
    petct.output(f"printf '{CRM}' > /etc/supervisor/conf.d/crm.conf; supervisorctl update")
    groups = ("rabbitmq", "result_store", "worker")
    inventory = Inventory.write(tmp_path_factory.mktemp("shop") / "inventory", petct, groups, SHOP)
    # The first run says that the database of the one that is there is taken, and which one is free.
    refused = inventory.play("site")
    assert refused.rc != 0
    assert "petct has that one in the same Redis. Write: celery_app_result_store_database: 2" in refused.words
    inventory.set("database", celery_app_result_store_database=2)
    return inventory


@pytest.fixture(scope="session")
def shop(petct, inventory):
    """The host, and the shop on it; by now all three are."""
    run = inventory.play("site")
    assert run.rc == 0, run.text[-6000:]
    return Host(petct.name, "shop")
