"""A generation as a manifest or a deployment's record describes it."""

from dataclasses import asdict

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.supervisor.generation import Generation, refuse_invalid

NAME = "app-worker-a-11111111"
CONF = f"# owner: celery-ops app-worker-\n[program:{NAME}]\ncommand=/srv/app/50%%/guard -n {NAME}\n"
# As version 0.1 wrote it.
RECORDED = {
    "family": "app-worker-a",
    "name": NAME,
    "conf": CONF,
    "ready": ["ready", NAME],
    "ready_timeout": 60,
    "settle": 6,
    "lasting_children": False,
    "strategy": "one_by_one",
    "restore_strategy": None,
    "stop_timeout": 330,
    "log": f"/var/log/app/{NAME}.log",
    "of": "",
}


def test_a_record_of_an_older_version_is_brought_back():
    generation = Generation.restored(RECORDED)
    assert (generation.program, generation.strategy, generation.min_uptime) == ("app-worker-a", "rolling", 0)
    assert (generation.ready, generation.stop_timeout) == (["ready", NAME], 330)


def test_a_record_of_this_version_is_brought_back_as_it_ran():
    generation = Generation("app-web", NAME, CONF, min_uptime=4, restore_strategy="replace", replaces=["app-site"])
    again = Generation.restored(asdict(generation))
    assert (again.strategy, again.min_uptime, again.replaces) == ("replace", 0, ["app-site"])


def test_the_executable_is_what_supervisord_runs():
    assert Generation.restored(RECORDED).executable == "/srv/app/50%/guard"


def test_a_program_is_in_a_manifest_once():
    one = Generation.restored(RECORDED)
    refuse_invalid(["app-worker-"], [one])
    with pytest.raises(OperatorError, match="is listed twice"):
        refuse_invalid(["app-worker-"], [one, one.again(1)])


def test_the_same_under_another_name_knows_the_one_it_equals():
    one = Generation.restored({**RECORDED, "settle": 0})
    again = one.again(1)
    assert again.name != NAME and again.of == NAME
    assert again.original == one == one.original
    assert [each.name for each in again.names] == [each.name for each in one.names]
