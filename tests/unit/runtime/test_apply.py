"""`celery_ops.apply(app)` with every way to configure Celery: what the application sets is its own, the rest ours."""

import sys
import types

import celery_ops
import pytest
from celery import Celery
from celery_ops.worker import defaults, versions

OWN = {"task_acks_late": False, "broker_transport_options": {"read_timeout": 99}}


def named(**settings):
    """A module or class with these settings."""
    return type("Configuration", (), settings)


def with_prefix(prefix):
    return named(**{f"{prefix}{name.upper()}": value for name, value in OWN.items()})


def old_names():
    return named(CELERY_ACKS_LATE=False, BROKER_TRANSPORT_OPTIONS={"read_timeout": 99})


def by_module(app, monkeypatch):
    module = types.ModuleType("its_settings")
    vars(module).update(with_prefix("CELERY_").__dict__)
    monkeypatch.setitem(sys.modules, "its_settings", module)
    app.config_from_object("its_settings", namespace="CELERY")


def by_environment(app, monkeypatch):
    module = types.ModuleType("its_settings")
    vars(module).update(OWN)
    monkeypatch.setitem(sys.modules, "its_settings", module)
    monkeypatch.setenv("ITS_SETTINGS", "its_settings")
    app.config_from_envvar("ITS_SETTINGS")


def by_attributes(app, _):
    for name, value in OWN.items():
        setattr(app.conf, name, value)


STYLES = {
    "namespace": by_module,
    "another namespace": lambda app, _: app.config_from_object(with_prefix("SHOP_"), namespace="SHOP"),
    "class": lambda app, _: app.config_from_object(named(**OWN)),
    "read at once": lambda app, _: app.config_from_object(named(**OWN), force=True),
    "old names": lambda app, _: app.config_from_object(old_names()),
    "update": lambda app, _: app.conf.update(OWN),
    "attributes": by_attributes,
    "defaults": lambda app, _: app.add_defaults(OWN),
    "environment": by_environment,
    "twice": lambda app, patch: (app.config_from_object(named(task_ignore_result=True)), by_module(app, patch)),
}


@pytest.fixture
def app():
    return Celery("demo", broker="memory://", set_as_current=False, include=["json"])


def apply_first(app, configure):
    celery_ops.apply(app)
    configure()


def apply_last(app, configure):
    configure()
    celery_ops.apply(app)


def apply_when_read(app, configure):
    """The application reads its configuration early, then configures (again)."""
    celery_ops.apply(app)
    _ = app.conf.timezone
    configure()


def apply_to_a_final_app(app, configure):
    configure()
    app.finalize()
    _ = app.conf.timezone
    celery_ops.apply(app)


@pytest.mark.parametrize("order", [apply_first, apply_last, apply_when_read, apply_to_a_final_app])
@pytest.mark.parametrize("style", STYLES)
def test_what_the_application_sets_stays_and_the_rest_is_ours(app, monkeypatch, style, order):
    order(app, lambda: STYLES[style](app, monkeypatch))
    assert app.conf.task_acks_late is False
    assert app.conf.broker_transport_options["read_timeout"] == 99
    # A change afterwards replaces the whole of it.
    if style not in ("update", "attributes", "defaults") or order is not apply_when_read:
        assert app.conf.broker_transport_options["confirm_publish"] is True
    assert app.conf.task_reject_on_worker_lost is True
    assert app.conf.worker_consumer == "celery_ops.worker.consumer:Consumer"
    assert app.conf.broker_url == "memory://"
    assert defaults.left(app).keys() == {"task_acks_late", "broker_transport_options"}


@pytest.mark.parametrize("order", [apply_first, apply_last, apply_when_read, apply_to_a_final_app])
@pytest.mark.parametrize("namespace", ["CELERY", "SHOP", None])
def test_the_tick_joins_a_schedule_under_any_name(app, namespace, order):
    mine = {"mine": {"task": "demo.mine", "schedule": 60.0}}
    name = f"{namespace}_BEAT_SCHEDULE" if namespace else "beat_schedule"
    order(app, lambda: app.config_from_object(named(**{name: mine}), namespace=namespace))
    app.finalize()
    assert app.conf.beat_schedule.keys() == {"mine", "celery-ops-tick"}


def test_an_application_without_settings_takes_all_but_the_name_of_its_queue(app, monkeypatch):
    celery_ops.apply(app)
    assert defaults.left(app) == {}
    assert app.conf.task_default_queue == "celery"
    assert app.amqp.queues["celery"].exchange.name == "celery"
    assert app.amqp.queues["celery"].exchange.type == "topic"


@pytest.mark.parametrize(
    ("own", "as_celery_has_it"),
    [
        ({"task_serializer": "pickle", "accept_content": ["pickle"]}, {}),
        ({"result_serializer": "json"}, {"result_accept_content": None}),
        ({"task_queue_max_priority": 10}, {"task_default_exchange_type": "direct"}),
        ({"task_default_queue": "shop", "task_default_exchange_type": "direct"}, {}),
        ({"task_time_limit": 60}, {"task_soft_time_limit": None}),
        ({"control_queue_exclusive": True}, {"control_queue_durable": False}),
    ],
)
def test_settings_that_only_make_sense_together_are_all_left(app, own, as_celery_has_it):
    if "control_queue_durable" in as_celery_has_it and versions.missing_settings():
        pytest.skip("this Celery has no such settings")
    celery_ops.apply(app)
    _ = app.conf.timezone  # set later than the configuration is read, too
    app.conf.update(own)
    for name, value in {**own, **as_celery_has_it}.items():
        assert app.conf.get(name) == value
    if "task_queue_max_priority" in own or "task_default_exchange_type" in own:
        assert app.conf.get("task_default_queue_type") in (None, "classic")
    assert app.conf.task_acks_late is True


def test_two_applications_of_one_process_do_not_touch_each_other(app):
    other = Celery("other", broker="memory://", set_as_current=False)
    celery_ops.apply(app)
    other.conf.task_acks_late = False
    assert (app.conf.task_acks_late, other.conf.worker_consumer) == (True, "celery.worker.consumer:Consumer")


def test_celery_report_shows_them(app):
    celery_ops.apply(app)
    assert app.conf.table(with_defaults=False)["task_acks_late"] is True
