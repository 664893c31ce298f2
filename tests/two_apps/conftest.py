"""One host with the reference application (from converge), the shop beside it, and a program of somebody else's."""

import os
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy"))

from lab import ROOT, Host, Inventory

SHOP = {
    "celery_app_name": "shop",
    "celery_app_source": str(ROOT / "tests/apps/shop"),
    "celery_app_requirements": "pyproject.toml",
}
CRM = "[program:crm]\ncommand=/bin/sleep 100000\n"


@pytest.fixture(scope="session")
def name():
    """The host's name."""
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/two_apps needs the host of a molecule scenario; type: make molecule")
    return yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"][0]["name"]


@pytest.fixture(scope="session")
def shop(name, tmp_path_factory):
    """The shop's own inventory."""
    groups = ("rabbitmq", "result_store", "worker")
    return Inventory.write(tmp_path_factory.mktemp("shop") / "inventory", name, groups, SHOP)


@pytest.fixture(scope="session")
def host(name, shop):
    """The host, with all three on it."""
    host = Host(name)
    host.run(f"printf '{CRM}' > /etc/supervisor/conf.d/crm.conf; supervisorctl update")
    # The first run says that the database of the one that is there is taken, and which one is free.
    refused = shop.play("site")
    assert refused.rc != 0
    assert "petct has that one in the same Redis. Write: celery_app_result_store_database: 2" in refused.words
    shop.set("database", celery_app_result_store_database=2)
    run = shop.play("site")
    assert run.rc == 0, run.text[-6000:]
    return host
