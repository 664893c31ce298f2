"""The recipes of docs/your-app.md are what the scenario `apps` deploys."""

import sys
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules.model import GROUPS, declared

sys.path.append(str(Path(__file__).resolve().parents[2] / "apps"))

from catalog import APPS, HERE, recipes

USED = [app.recipe for app in APPS if app.recipe]


def test_each_recipe_is_one_that_a_test_deploys():
    assert len(recipes()) == 5
    assert set(recipes()) == set(USED)


@pytest.mark.parametrize("app", APPS, ids=[app.name for app in APPS])
def test_an_applications_inventory_has_groups_and_variables_of_the_kit(app):
    groups, variables = app.inventory
    assert set(groups) <= set(GROUPS)
    assert set(variables) <= set(declared())
    assert ("web" in groups) == ("celery_web_command" in variables) == bool(app.page)


@pytest.mark.parametrize("app", APPS, ids=[app.name for app in APPS])
def test_an_applications_source_is_a_directory_beside_the_tests(app):
    assert (HERE / app.tree / app.module).is_file()
    assert Path(app.inventory[1]["celery_app_source"].removesuffix(".git")).name == app.tree
