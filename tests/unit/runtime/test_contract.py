"""What the runtime touches of Celery, kombu and billiard beyond their documented interface is there, as installed.

`make matrix` runs this with each supported version; a version in which something has gone fails here, by its name.
"""

import importlib
import inspect
import re
import ssl
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import amqp
import billiard.pool
import billiard.process
import celery._state
import celery.app.utils
import celery.worker.consumer
import celery.worker.control
import celery.worker.loops
import kombu
import kombu.message
import kombu.transport.pyamqp
import pytest
import redis
from celery import Celery, beat, signals
from celery.app.defaults import DEFAULTS
from celery.backends.redis import RedisBackend
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.loaders.base import BaseLoader
from celery.worker import WorkController, state
from celery.worker.request import Request
from celery_ops import settings
from celery_ops.worker import defaults, large_results, versions

RUNTIME = Path(settings.__file__).parent
PRIVATE = {
    # celery_ops.tasks, celery_ops.probe
    "_get_active_apps": lambda: celery._state._get_active_apps,
    "connect_on_app_finalize": lambda: celery._state.connect_on_app_finalize,
    "find_app": lambda: celery.app.utils.find_app,
    "override_backends": lambda: BaseLoader.override_backends,
    # celery_ops.inspection.named
    "_finalize_steps": lambda: celery.worker.WorkController.Blueprint._finalize_steps,
    "claim_steps": lambda: celery.worker.WorkController.Blueprint.claim_steps,
    # celery_ops.worker.consumer
    "on_decode_error": lambda: celery.worker.consumer.Consumer.on_decode_error,
    "ensure_connected": lambda: celery.worker.consumer.Consumer.ensure_connected,
    "on_close": lambda: celery.worker.consumer.Consumer.on_close,
    "stop": lambda: celery.worker.consumer.Consumer.stop,
    "bucket_for_task": lambda: celery.worker.consumer.Consumer.bucket_for_task,
    "reserved_requests": lambda: state.reserved_requests,
    "active_requests": lambda: state.active_requests,
    "all_total_count": lambda: state.all_total_count[0],
    "_apply_result": lambda: Request._apply_result,
    "_write_to": lambda: billiard.pool.ApplyResult._write_to,
    "_writer": lambda: "job._writer = ref(cor)" in inspect.getsource(AsynPool) or 1 / 0,
    "inqW_fd": lambda: "proc.inqW_fd" in inspect.getsource(AsynPool) or 1 / 0,
    "_accepted": lambda: billiard.pool.ApplyResult({}, None)._accepted,
    "_is_alive": lambda: billiard.process.BaseProcess._is_alive,
    "num_processes": lambda: TaskPool.num_processes,
    # celery_ops.worker.clock
    "_heap": lambda: beat.Scheduler(app=app(), lazy=True)._heap,
    # celery_ops.worker.canary
    "create_task_handler": lambda: celery.worker.consumer.Consumer.create_task_handler,
    "inspect_command": lambda: celery.worker.control.inspect_command,
    "annotate": lambda: celery.Task.annotate,
    "type_to_name": lambda: kombu.serialization.registry.type_to_name["application/json"],
    # celery_ops.worker.failover
    "_validate_broker_urls": lambda: delayed_delivery()._validate_broker_urls,
    "_producer_pool": lambda: app().amqp._producer_pool or True,
    "producer_pool": lambda: vars(type(app().control.mailbox))["producer_pool"],
    "get_queue": lambda: app().control.mailbox.get_queue("node@host"),
    "amqheartbeat": lambda: "self.amqheartbeat = " in inspect.getsource(celery.worker.consumer.Consumer) or 1 / 0,
    "connect": lambda: celery.worker.consumer.Consumer.connect,
    # celery_ops.worker.revoked
    "revoked": lambda: state.revoked.update,
    "revoke": lambda: celery.worker.control.Panel.data["revoke"],
    "terminate": lambda: celery.worker.control.Panel.data["terminate"],
    "expires": lambda: state.revoked.expires,
    # celery_ops.arrays
    "_encoders": lambda: kombu.serialization.registry._encoders["json"].encoder,
    # celery_ops.worker.heartbeat
    "_active_tags": lambda: kombu.Consumer(app().connection_for_read().channel())._active_tags,
    "callbacks": lambda: "self.callbacks = {}" in inspect.getsource(amqp.Channel.__init__) or 1 / 0,
    # celery_ops.worker.defaults
    "_to_keys": lambda: app().conf._to_keys("task_acks_late"),
    "_keys": lambda: app().conf._keys,
    "maps": lambda: app().conf.maps,
    "defaults": lambda: app().conf.defaults,
    # celery_ops.worker.results
    "_transport_options": lambda: vars(celery.backends.redis.RedisBackend)["_transport_options"],
    "_params_from_url": lambda: celery.backends.redis.SentinelBackend._params_from_url,
    "connparams": lambda: RedisBackend(app=app(), url="redis://127.0.0.1/0").connparams,
    # celery_ops.worker.large_results
    "_set": lambda: RedisBackend._set,
    "_get_client": lambda: RedisBackend._get_client,
    "_get_result_meta": lambda: "self._get_result_meta(" in inspect.getsource(RedisBackend._store_result) or 1 / 0,
    "_forget": lambda: RedisBackend._forget,
    "_MAX_STR_VALUE_SIZE": lambda: RedisBackend._MAX_STR_VALUE_SIZE,
    "NEVER_DECODE": lambda: redis.client.NEVER_DECODE,
    "_parsers": lambda: "self._buffer = SocketBuffer(" in inspect.getsource(large_results.Parser.on_connect) or 1 / 0,
    "read": lambda: "self._buffer.read(" in inspect.getsource(large_results.Parser) or 1 / 0,
    "_sock": lambda: "self._sock = " in inspect.getsource(large_results.SocketBuffer.__init__) or 1 / 0,
    # celery_ops.worker.message_size
    "prepare_message": lambda: "channel.prepare_message(" in inspect.getsource(kombu.Producer._publish) or 1 / 0,
    "server_properties": lambda: "self.server_properties = " in inspect.getsource(amqp.Connection) or 1 / 0,
    "Channel": lambda: kombu.transport.pyamqp.Connection.Channel,
    # celery_ops.worker.storing
    "_worker_pid": lambda: billiard.pool.ApplyResult({}, None)._worker_pid,
    "soft_timeout_sighandler": lambda: billiard.pool.soft_timeout_sighandler,
    "on_soft_timeout": lambda: billiard.pool.TimeoutHandler.on_soft_timeout,
    "on_hard_timeout": lambda: billiard.pool.TimeoutHandler.on_hard_timeout,
    # celery_ops.worker.ticks
    "_create_client": lambda: RedisBackend._create_client,
    "get_key_for_task": lambda: RedisBackend.get_key_for_task,
    "execute_using_pool": lambda: "req.execute_using_pool(" in inspect.getsource(WorkController) or 1 / 0,
    "request_dict": lambda: Request.request_dict,
    # celery_ops.worker.task_list
    "_root_id": lambda: "self._root_id = " in inspect.getsource(Request.__init__) or 1 / 0,
    # celery_ops.watchdog.metrics
    "_ssl": lambda: ssl._ssl,
    "_test_decode_cert": lambda: ssl._ssl._test_decode_cert,
    # celery_ops.lease
    "start": lambda: beat.Service.start,
    "apply_async": lambda: "producer=producer" in inspect.getsource(beat.Scheduler.apply_async) or 1 / 0,
    "reserve": lambda: "self.reserve(entry)" in inspect.getsource(beat.Scheduler.tick) or 1 / 0,
    "sync_every_tasks": lambda: beat.Scheduler.sync_every_tasks,
    # celery_ops.publish
    "send_method": lambda: amqp.Channel.send_method,
    "events": lambda: "self.events = defaultdict(set)" in inspect.getsource(amqp.Channel.__init__) or 1 / 0,
    "basic_ack": lambda: "self.events['basic_ack']" in inspect.getsource(amqp.Channel._on_basic_ack) or 1 / 0,
    "basic_nack": lambda: "self.events['basic_nack']" in inspect.getsource(amqp.Channel._on_basic_nack) or 1 / 0,
    "basic_publish": lambda: "channel.basic_publish(" in inspect.getsource(kombu.Producer._publish) or 1 / 0,
    "sock": lambda: "self.sock = " in inspect.getsource(amqp.transport) or 1 / 0,
    # celery_ops.worker.acks
    "basic_ack of a message": lambda: "self.channel.basic_ack(" in inspect.getsource(kombu.Message.ack) or 1 / 0,
    "basic_reject": lambda: "self.channel.basic_reject(" in inspect.getsource(kombu.Message.reject) or 1 / 0,
    "initial_prefetch_count": lambda: (
        "self.initial_prefetch_count" in inspect.getsource(celery.worker.consumer.Consumer) or 1 / 0
    ),
    "call_later": lambda: kombu.asynchronous.Hub.call_later,
    "MessageNacked": lambda: amqp.exceptions.MessageNacked,
}


def delayed_delivery():
    """Celery's step that sets up delayed delivery; where it is not there yet, what is asked of it."""
    if versions.installed("celery") < versions.QUORUM:
        return SimpleNamespace(_validate_broker_urls=None)
    return importlib.import_module("celery.worker.consumer.delayed_delivery").DelayedDelivery


def app():
    return Celery("demo", broker="memory://", set_as_current=False)


@pytest.mark.parametrize("name", PRIVATE)
def test_what_the_runtime_touches_is_there(name):
    PRIVATE[name]()


def test_the_runtime_touches_nothing_private_that_is_not_listed_here():
    code = "\n".join(path.read_text() for path in RUNTIME.rglob("*.py"))
    touched = set(re.findall(r"(?<!self)(?<!\bos)\.(_[a-z]\w+)", code)) - {"_state"}
    assert touched - {"_cache", "_pool", "_exit"} <= PRIVATE.keys()


def test_the_pools_jobs_are_where_they_are_looked_for():
    assert "self._pool = " in inspect.getsource(TaskPool.on_start)
    assert "self._cache = {}" in inspect.getsource(billiard.pool.Pool.__init__)


def test_a_prefork_pool_gives_its_jobs_a_process():
    assert "job._write_to = proc" in inspect.getsource(AsynPool._create_write_handlers)


def test_a_rate_limited_task_waits_in_a_bucket():
    from kombu.utils.limits import TokenBucket

    assert "contents" in vars(TokenBucket(1))


def test_a_message_without_acknowledgement_needs_these_methods_of_its_channel_only():
    asked = set(re.findall(r"self\.channel\.(\w+)", inspect.getsource(kombu.message.Message)))
    assert asked <= {"no_ack_consumers", "basic_ack", "basic_reject", "message_to_python"}


@pytest.mark.parametrize(
    "name",
    [
        "worker_init", "worker_ready", "worker_shutting_down", "worker_before_create_process", "beat_init",
        "before_task_publish", "task_received",
    ],
)  # fmt: skip
def test_the_signals_are_there(name):
    assert hasattr(signals, name)


@pytest.mark.parametrize("step", ["celery.worker.components:Timer", "celery.worker.consumer.tasks:Tasks"])
def test_the_steps_that_ours_come_after_are_there(step):
    module, _, name = step.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name).__name__ == name


@pytest.mark.parametrize("name", sorted({*defaults.VALUES, "task_default_queue"}))
def test_each_setting_of_the_kit_is_known(name):
    assert name in DEFAULTS
    assert hasattr(settings, name)


@pytest.mark.parametrize("name", versions.SETTINGS)
def test_the_table_says_of_each_setting_since_when_it_is_known(name):
    assert (name in DEFAULTS) == (versions.installed("celery") >= versions.SETTINGS[name].since)


def test_the_protocol_is_told_to_clients_that_know_it_and_results_work_with_all():
    backend = RedisBackend(app=app(), url="redis://127.0.0.1/0")
    assert "protocol" not in backend.connparams
    import celery_ops.tasks  # noqa: F401

    ours = Celery("demo", backend="redis://127.0.0.1/0", set_as_current=False).backend
    assert type(ours).__module__ == "celery_ops.worker.results"
    connection = ours.client.connection_pool.make_connection()  # an argument that it doesn't know raises here
    assert getattr(connection, "protocol", 2) in (2, "2")
    theirs = Celery("demo", backend="redis://127.0.0.1/0?protocol=3", set_as_current=False)
    assert theirs.backend.connparams["protocol"] in (3, "3")


def test_what_is_installed_is_supported():
    assert versions.refused() == []
    assert versions.installed("celery") == tuple(map(int, metadata.version("celery").split(".")))


@pytest.mark.parametrize(
    ("package", "version", "oldest"),
    [("celery", "5.2.7", "5.3"), ("celery", "4.4.7", "5.3"), ("kombu", "5.2.4", "5.3"), ("redis", "3.5.3", "4.6")],
)
def test_an_older_one_is_refused_by_name_and_version(monkeypatch, package, version, oldest):
    asked = metadata.version
    monkeypatch.setattr(versions.metadata, "version", lambda name: version if name == package else asked(name))
    (refusal,) = versions.refused((3, 11))
    assert refusal["problem"].startswith(f"{package} {version} is too old")
    assert refusal["write"].startswith(f"{package}>={oldest}")


@pytest.mark.parametrize(
    ("python", "package", "version", "oldest"),
    [
        ((3, 11), "billiard", "4.1.0", ""),
        ((3, 13), "billiard", "4.2.0", "4.2.1"),
        ((3, 13), "billiard", "4.2.1", ""),
        ((3, 14), "billiard", "4.1.0", "4.2.1"),
        ((3, 11), "kombu", "5.3.0", ""),
        ((3, 12), "kombu", "5.3.2", "5.3.3"),
        ((3, 13), "kombu", "5.3.3", ""),
    ],
)
def test_one_that_does_not_run_on_this_python_is_refused(monkeypatch, python, package, version, oldest):
    asked = {"billiard": "4.3.2", "kombu": "5.7.0", "celery": "5.7.0", "redis": "8.1.0", package: version}
    monkeypatch.setattr(versions.metadata, "version", asked.__getitem__)
    written = [one["write"].partition(" ")[0] for one in versions.refused(python)]
    assert written == ([f"{package}>={oldest}"] if oldest else [])


@pytest.mark.parametrize(("text", "numbers"), [("5.6.0rc1", (5, 6, 0)), ("5.10", (5, 10)), ("5.5.0b4.dev1", (5, 5, 0))])
def test_a_version_is_read_as_numbers(monkeypatch, text, numbers):
    monkeypatch.setattr(versions.metadata, "version", lambda _: text)
    assert versions.installed("celery") == numbers


def test_a_broker_that_denies_the_control_queues_is_told_from_other_errors():
    # As RabbitMQ 4.3.6 says it.
    said = "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.\nIts use is not permitted"
    assert "use Celery 5.7, or 5.6 with" in versions.refused_by_broker(amqp.exceptions.InternalError(said, (50, 10)))
    assert versions.refused_by_broker(amqp.exceptions.InternalError("INTERNAL_ERROR", (50, 10))) == ""
