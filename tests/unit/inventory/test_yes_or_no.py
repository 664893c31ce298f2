"""A yes or no that is text, as an INI inventory and -e have it, is heard as what it says."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.action.celery_doctor import wanted_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import environment_of
from ansible_collections.celery_ops.kit.plugins.plugin_utils.variables import Variables

KNOWN = {
    "inventory_hostname": "one",
    "groups": {"worker": ["one"]},
    "group_names": ["worker"],
    "hostvars": {"one": {}},
    "celery_app_name": "shop",
    "celery_app_broker_url": "amqp://shop:x@mq/shop",
    "celery_app_result_backend": "none",
    "celery_app_task_time_limit": "300",
    "celery_app_environment": {},
    "celery_app_secrets": {},
    "celery_app_tls": True,
    "celery_worker_programs": [],
}
SAID = [("false", False), ("no", False), (False, False), ("true", True), ("yes", True), (True, True)]


@pytest.mark.parametrize(("said", "meant"), SAID)
def test_failed_tasks_are_kept_only_where_it_says_so(said, meant):
    known = Variables(KNOWN | {"celery_app_keep_failed": said}, lambda value: value)
    assert ("CELERY_OPS_KEEP_FAILED" in environment_of(known)) is meant


@pytest.mark.parametrize(("said", "meant"), SAID)
def test_doctor_expects_tls_only_where_it_says_so(said, meant):
    assert wanted_of(Variables(KNOWN | {"celery_app_tls": said}, lambda value: value))["tls"] is meant
