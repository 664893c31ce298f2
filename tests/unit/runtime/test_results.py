"""The kit's Redis backends: results are kept while the store is away, and Sentinel's URL is enough."""

from __future__ import annotations

import ssl
import sys
import threading
from types import SimpleNamespace

import pytest
from celery import Celery
from celery_ops.worker import results, store_away
from redis import exceptions

URL = "sentinel://shop:p%2Fw@10.0.0.5:26379/3;sentinel://shop:p%2Fw@10.0.0.6:26379/3"


class Flaky:
    """A backend that refuses the first attempts."""

    always_retry = False

    def __init__(self, failures: int, answer: str = "", error: Exception | None = None) -> None:
        self.failures, self.attempts = failures, 0
        self.error = error or (ValueError(answer) if answer else ConnectionAbortedError("refused"))

    def exception_safe_to_retry(self, error: Exception) -> bool:
        return False  # as where Celery can't import kombu's list of errors

    def store_result(self, task_id: str, result: int, state: str) -> int:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise self.error
        return result


class Store(results.StoresPatiently, Flaky):
    """The same with patience."""


def in_thread(call):
    """Return what a call in another thread returns or raises, as a task of a pool of threads."""
    said = []

    def run() -> None:
        try:
            said.append(call())
        except Exception as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return said[0]


@pytest.fixture(autouse=True)
def in_worker(monkeypatch):
    monkeypatch.setattr(results, "PAUSE", 0)
    store_away._is_worker.set()
    yield
    store_away._is_worker.clear()


def test_a_result_is_kept_until_the_store_is_back():
    store = Store(3)
    assert in_thread(lambda: store.store_result("id", 7, "SUCCESS")) == 7
    assert store.attempts == 4


@pytest.mark.parametrize("kind", [exceptions.ConnectionError, exceptions.TimeoutError])
def test_the_clients_own_errors_need_not_be_known_to_celery(kind):
    assert in_thread(lambda: Store(3, error=kind("no answer")).store_result("id", 7, "SUCCESS")) == 7


def test_the_limit_of_a_pool_of_gevent_loses_no_result(monkeypatch):
    timeout = type("Timeout", (BaseException,), {})
    monkeypatch.setitem(sys.modules, "gevent", SimpleNamespace(Timeout=timeout))
    assert in_thread(lambda: Store(1, error=timeout()).store_result("id", 7, "SUCCESS")) == 7
    with pytest.raises(timeout):  # the task runs
        Store(1, error=timeout()).store_result("id", 7, "PROGRESS")


def test_it_is_given_up_in_the_end_and_at_once_where_the_application_has_retries_of_its_own(monkeypatch):
    own = Store(3)
    own.always_retry = True
    assert isinstance(in_thread(lambda: own.store_result("id", 7, "SUCCESS")), ConnectionError)
    assert own.attempts == 1
    monkeypatch.setattr(results, "PATIENCE", 0)
    assert isinstance(in_thread(lambda: Store(3).store_result("id", 7, "SUCCESS")), ConnectionError)


def test_the_main_loop_of_a_worker_or_a_page_does_not_wait():
    store = Store(3)
    with pytest.raises(ConnectionError):
        store.store_result("id", 7, "SUCCESS")
    assert store.attempts == 1


def test_a_thread_of_a_web_server_does_not_wait():
    store_away._is_worker.clear()
    store = Store(3)
    assert isinstance(in_thread(lambda: store.store_result("id", None, "SENT")), ConnectionError)
    assert store.attempts == 1


def backend(**settings):
    """Return the backend of an application with the kit's tasks."""
    import celery_ops.tasks  # noqa: F401

    app = Celery("shop", set_as_current=False)
    app.conf.update(result_backend=URL, **settings)
    return app.backend


def test_the_kits_sentinels_need_no_setting(monkeypatch):
    monkeypatch.setenv("CELERY_OPS_SENTINEL", "celery-ops")
    monkeypatch.setenv("CELERY_OPS_TLS_CA", "/etc/shop/ca.pem")
    monkeypatch.setenv("CELERY_OPS_TLS_CLIENT", "/etc/shop/client.pem")
    store = backend()
    assert type(store) is results.SentinelBackend
    assert [(each["host"], each["port"]) for each in store.connparams["hosts"]] == [
        ("10.0.0.5", 26379),
        ("10.0.0.6", 26379),
    ]
    assert (store.connparams["username"], store.connparams["password"], store.connparams["db"]) == ("shop", "p/w", 3)
    assert store.connparams["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert store.connparams["ssl_ca_certs"] == "/etc/shop/ca.pem"
    assert store.connparams["ssl_check_hostname"] is True
    options = store._transport_options
    assert options["master_name"] == "celery-ops"
    # The next Sentinel is asked, and Sentinel is asked again, instead of the same address.
    assert options["sentinel_kwargs"].pop("retry")._retries == store.connparams["retry"]._retries == 0
    assert options["sentinel_kwargs"] == {
        "username": "shop",
        "password": "p/w",
        "socket_timeout": 2.0,
        "socket_connect_timeout": 2.0,
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": "/etc/shop/ca.pem",
        "ssl_check_hostname": True,
        "ssl_certfile": "/etc/shop/client.pem",
    }
    assert store.connparams["ssl_certfile"] == "/etc/shop/client.pem"
    pool = store._get_pool(**store.connparams)
    assert issubclass(pool.connection_class, store.connection_class_ssl)
    assert pool.connection_kwargs["username"] == "shop"


def test_a_primary_that_has_lost_its_replicas_is_asked_again():
    assert in_thread(lambda: Store(3, "NOREPLICAS Not enough good replicas").store_result("id", 7, "SUCCESS")) == 7
    refused = in_thread(lambda: Store(3, "WRONGTYPE").store_result("id", 7, "SUCCESS"))
    assert isinstance(refused, ValueError)


def test_without_tls_and_with_options_of_the_applications_own(monkeypatch):
    monkeypatch.setenv("CELERY_OPS_SENTINEL", "celery-ops")
    monkeypatch.delenv("CELERY_OPS_TLS_CA", raising=False)
    store = backend(result_backend_transport_options={"retry_policy": {"max_retries": 1}})
    assert store._transport_options["retry_policy"] == {"max_retries": 1}
    assert "ssl" not in store._transport_options["sentinel_kwargs"]
    assert "connection_class" not in store.connparams


def test_sentinels_of_somebody_else_keep_the_applications_settings(monkeypatch):
    monkeypatch.delenv("CELERY_OPS_SENTINEL", raising=False)
    monkeypatch.setenv("CELERY_OPS_TLS_CA", "/etc/shop/ca.pem")
    store = backend(result_backend_transport_options={"master_name": "mymaster"})
    assert store._transport_options == {"master_name": "mymaster"}
    assert "connection_class" not in store.connparams
