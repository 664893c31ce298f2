"""Safe Celery settings: take them with ``celery_ops.apply(app)``, beside settings of the application's own.

An application without other settings may write ``app.config_from_object("celery_ops.settings")`` and add its own
afterwards with ``app.conf.update(...)``. Producers need these settings as much
as workers do. Celery itself reads the addresses from CELERY_BROKER_URL and CELERY_RESULT_BACKEND; read here
are CELERY_OPS_DEFAULT_QUEUE (default "celery") and CELERY_OPS_TASK_TIME_LIMIT (seconds, default 300).
Dead-lettering, the delivery limit and the consumer timeout are the broker's: a policy on the vhost.
"""

import os as _os
import ssl as _ssl

import celery_ops.arrays as _arrays
import celery_ops.launch.env as _env
import celery_ops.layout as _layout
import celery_ops.worker.versions as _versions


def _seconds(name: str, default: int) -> int:
    value = _os.environ.get(name) or str(default)
    if not value.isdigit() or int(value) == 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of seconds, 2 or more, or 0 for none")
    return int(value)


# What may travel: JSON, and numpy arrays as bytes. Pickle is refused in both directions.
accept_content = ["json", _arrays.NAME]
result_accept_content = accept_content
task_serializer = "json"
result_serializer = _arrays.NAME

# Quorum queues on topic exchanges: all else makes countdown, eta and retry block workers on RabbitMQ 4.
task_default_queue = _os.environ.get("CELERY_OPS_DEFAULT_QUEUE") or "celery"
task_default_queue_type = "quorum"
task_default_exchange_type = "topic"
task_create_missing_queue_type = "quorum"
task_create_missing_queue_exchange_type = "topic"

# A publish returns when the broker has the message, or raises; without confirms it loses messages silently.
# A broker that takes nothing (memory or disk alarm, frozen) costs a publisher 10 s for each attempt and each
# close, 40 s in all; the one retry is for pooled connections that a restart of the broker has cut.
# In a cluster the next node takes it instead, and each wait is short: the first attempt may meet the node that is gone,
# later ones those that are choosing another leader for the queue.
_url = _os.environ.get("CELERY_BROKER_URL") or ""
_is_cluster = ";" in _url
_patience = 5 if _is_cluster else 10
broker_transport_options = {"confirm_publish": True, "read_timeout": _patience, "write_timeout": _patience}
if _client := _env.connection_name():
    broker_transport_options["client_properties"] = {"connection_name": _client}
task_publish_retry_policy = {
    "max_retries": 6 if _is_cluster else 1,
    "interval_start": 0.2,
    "interval_step": 0.5,
    "interval_max": 1,
}
broker_connection_timeout = 3 if _is_cluster else 4
if _is_cluster:
    # kombu's time for all URLs together is that for one of them: it would never ask the one after a frozen node.
    broker_transport_options["connect_retries_timeout"] = 4 * broker_connection_timeout
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a worker waits for its broker, however long that takes
# By itself the client verifies who signed the broker's certificate, but not the name in it. None stands for the URL's
# host, and of several URLs for the first one's, always.
_name, _ca, _shown = (_os.environ.get(f"CELERY_OPS_TLS_{_what}") or None for _what in ("NAME", "CA", "CLIENT"))
if _url.startswith("amqps://") and (_name or not _is_cluster):
    broker_use_ssl = {"server_hostname": _name}
    if _ca:  # the kit's own, which signs nothing but its brokers and result stores
        broker_use_ssl |= {"ca_certs": _ca, "cert_reqs": _ssl.CERT_REQUIRED}
    if _shown:  # whether the broker asks for it or not; certificate and key in one file
        broker_use_ssl["certfile"] = _shown

# Not exclusive: after a cut of the network the broker holds the old connection, and with it an exclusive queue, for a
# minute or more, and the worker that has come back would end with RESOURCE_LOCKED again and again. In a cluster a queue
# that stays is away with its node: there it goes with the connection, and a worker's has another name each time
# (`celery_ops.worker.failover`).
control_queue_exclusive = _is_cluster
control_queue_durable = not _is_cluster
# RabbitMQ 4.3 can deny transient queues that are not exclusive. Those of events have another name for each connection.
event_queue_exclusive = True

# A task is done when it returned, not when it was fetched. The broker's delivery limit ends a poison task.
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
# Opt-in (celery_app_keep_failed): a task that raised an exception is rejected, so that the broker moves it to the dead
# queue. One that exceeded its time limit is not: Celery would requeue it.
if _os.environ.get("CELERY_OPS_KEEP_FAILED"):
    if _versions.installed("celery") < _versions.ACKS_ON_FAILURE:
        raise ValueError(
            f"celery_app_keep_failed needs Celery 5.7, and {_versions.version('celery')} is installed. Write: "
            "celery>=5.7 in celery_app_requirements, or celery_app_keep_failed: false"
        )
    task_acks_on_failure = False
    task_store_errors_even_if_ignored = True  # for the name of the exception
# What can't be decoded is rejected, so that it is a dead letter; Celery would acknowledge it.
worker_consumer = "celery_ops.worker.consumer:Consumer"

# 0 where programs have limits of their own, on their command lines: a sender writes this one into each message, where
# it beats those.
task_time_limit = _seconds("CELERY_OPS_TASK_TIME_LIMIT", _layout.TIME_LIMIT) or None
task_soft_time_limit = task_time_limit and _layout.soft_limit(task_time_limit)

result_expires = 24 * 3600
redis_socket_connect_timeout = 4
redis_socket_timeout = 15
redis_socket_keepalive = True
redis_retry_on_timeout = True

# An application's own logging configuration stays as it is.
worker_hijack_root_logger = False

# What the installed Celery does not know it would ignore silently; so nothing says it were set.
for _name in _versions.missing_settings():
    del globals()[_name]

# The canary and the tick. Last, because making a task reads the settings of apps that are final already.
import celery_ops.tasks as _tasks  # noqa: E402, F401
