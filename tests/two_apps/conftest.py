"""One host with the reference application (from converge), the shop beside it, and a program of somebody else's."""

import os
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[1] / "deploy"))

from lab import ROOT, Host, play

SHOP = {
    "celery_app_name": "shop",
    "celery_app_source": str(ROOT / "tests/apps/shop"),
    "celery_app_requirements": "pyproject.toml",
    "celery_worker_programs": [{"name": "default", "queues": ["shop"], "concurrency": 2}],
    "celery_app_environment": {},
    "celery_app_secrets": {},
    "celery_app_migrate_command": "",
    "celery_app_seed_command": "",
    "celery_app_prove_command": "",
    "celery_app_prove_url": "",
    "celery_scheduler_enabled": False,
    "celery_web_command": "",
}
CRM = "[program:crm]\ncommand=/bin/sleep 100000\n"


@pytest.fixture(scope="session")
def shop():
    """The shop's variables; its database is the second."""
    return {**SHOP, "celery_app_result_store_database": 2}


@pytest.fixture(scope="session")
def host(shop):
    """The host, with all three on it."""
    if "MOLECULE_FILE" not in os.environ:
        raise pytest.UsageError("tests/two_apps needs the host of a molecule scenario; type: make molecule")
    host = Host(yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())["platforms"][0]["name"])
    host.run(f"printf '{CRM}' > /etc/supervisor/conf.d/crm.conf; supervisorctl update")
    # The first run says that the database of the one that is there is taken, and which one is free.
    refused = play("site", **SHOP)
    assert refused.rc != 0
    assert "petct has that one in the same Redis. Write: celery_app_result_store_database: 2" in refused.words
    run = play("site", **shop)
    assert run.rc == 0, run.text[-6000:]
    return host
