"""Environment files of former deployments: code and settings of then, credentials of today."""

from __future__ import annotations

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import environments
from ansible_collections.celery_ops.kit.plugins.module_utils.environments import parse, refresh, refreshed
from ansible_collections.celery_ops.kit.plugins.plugin_utils.environment import environment_text

THEN = {
    "CELERY_BROKER_URL": "amqp://shop:old%2Fb@10.0.0.5:5672/shop",
    "CELERY_RESULT_BACKEND": "redis://shop:old-s@10.0.0.5:6379/3",
    "BROKER": "amqp://shop:old%2Fb@10.0.0.5:5672/shop?heartbeat=5",
    "CACHE_URL": "redis://shop:old-s@10.0.0.5:6379/3",
    "BROKER_PASSWORD": "old/b",
    "GREETING": "it's old-s; $HOME",
    "EMPTY": "",
}
NOW = {
    "CELERY_BROKER_URL": "amqps://shop-2:new%2Fb@hub:5671/shop",
    "CELERY_RESULT_BACKEND": "rediss://shop:new-s@hub:6379/1?ssl_cert_reqs=required",
    "CELERY_OPS_TLS_CA": "/etc/shop/ca.pem",
    "GREETING": "new",
}


def test_only_the_way_to_broker_and_store_is_todays():
    fresh = parse(refreshed(environment_text(THEN), environment_text(NOW), "shop"))
    assert fresh == {
        "CELERY_BROKER_URL": "amqps://shop-2:new%2Fb@hub:5671/shop",
        "CELERY_RESULT_BACKEND": "rediss://shop:new-s@hub:6379/3?ssl_cert_reqs=required",
        "BROKER": "amqps://shop-2:new%2Fb@hub:5671/shop?heartbeat=5",
        "CACHE_URL": "rediss://shop:new-s@hub:6379/3?ssl_cert_reqs=required",
        "BROKER_PASSWORD": "new/b",
        "GREETING": "it's old-s; $HOME",
        "EMPTY": "",
        "CELERY_OPS_TLS_CA": "/etc/shop/ca.pem",
    }


def test_what_is_todays_already_stays_byte_for_byte():
    text = environment_text(NOW | {"GREETING": "another 'one' %"})
    assert refreshed(text, environment_text(NOW), "shop") == text


@pytest.mark.parametrize(
    "change",
    [
        {"CELERY_BROKER_URL": "amqp://mine:x@broker.example/v", "CELERY_RESULT_BACKEND": "disabled"},
        {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": "db+postgresql://shop_db:x@db/shop"},
    ],
)
def test_a_broker_or_store_of_somebody_elses_is_left_alone_then_and_now(change):
    theirs = environment_text(THEN | change)
    assert refreshed(theirs, environment_text(NOW), "shop") == theirs
    mine = environment_text(THEN)
    assert refreshed(mine, environment_text(NOW | change), "shop") == mine


def test_the_first_of_several_brokers_tells_whose_they_are():
    now = NOW | {"CELERY_BROKER_URL": "amqp://shop-2:n@a:5672/shop;amqp://shop-2:n@b:5672/shop"}
    fresh = parse(refreshed(environment_text(THEN), environment_text(now), "shop"))
    assert fresh["CELERY_BROKER_URL"] == now["CELERY_BROKER_URL"]


def test_files_of_former_deployments_are_replaced_and_the_current_one_is_not(tmp_path, monkeypatch):
    write = environments.write_atomically
    monkeypatch.setattr(environments, "write_atomically", lambda path, text, mode, *_: write(path, text, mode))
    for name, variables in (("env-then", THEN), ("env-now", NOW)):
        (tmp_path / name).write_text(environment_text(variables))
    assert refresh(tmp_path, "shop") == []
    (tmp_path / "env").symlink_to("env-now")
    assert refresh(tmp_path, "shop") == ["env-then"]
    assert (tmp_path / "env-then").stat().st_mode & 0o777 == 0o640
    assert "new%2Fb" in (tmp_path / "env-then").read_text()
    assert refresh(tmp_path, "shop") == []


def test_what_is_empty_gets_no_password_where_the_url_had_none():
    then = "CELERY_BROKER_URL=amqp://shop@mq:5672/shop\nPROXY=''\n"
    now = "CELERY_BROKER_URL=amqp://shop:s3cr3t@mq:5672/shop\nPROXY=''\n"
    assert parse(refreshed(then, now, "shop")) == {"CELERY_BROKER_URL": "amqp://shop:s3cr3t@mq:5672/shop", "PROXY": ""}
