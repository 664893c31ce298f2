"""The look at the page: what a healthy application answers to an incomplete request is no failure."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.modules import page_check
from ansible_collections.celery_ops.kit.plugins.modules.page_check import Page


@pytest.fixture
def page():
    """Serve what `answer(host, is_https, path)` says: a status, and perhaps a Location; return a Page of it."""
    servers = []

    def serve(answer, **options):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                is_https = self.headers.get("X-Forwarded-Proto") == "https"
                status, *location = answer(self.headers["Host"], is_https, self.path)
                self.send_response(status)
                if location:
                    self.send_header("Location", location[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        bind = f"0.0.0.0:{servers[-1].server_port}"
        return Page(**{"bind": bind, "path": "/", "host": "", "https": False, "timeout": 5.0, **options})

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def shop(host, is_https, path):
    """An application as behind a proxy: it wants one of its hosts, https, and a login."""
    if host.partition(":")[0] != "shop.example":
        return (400,)
    if not is_https:
        return 301, f"https://{host}{path}"
    return (200,) if path == "/login?next=/" else (302, "/login?next=/")


BY_NAME = {"host": "shop.example"}


@pytest.mark.parametrize(
    ("answer", "options", "status", "says"),
    [
        (shop, {"host": "shop.example", "https": True}, 200, ""),
        (shop, {"host": "shop.example:444", "https": True}, 200, ""),
        (shop, BY_NAME, 301, "Write: celery_app_check_https: true"),
        (
            shop,
            {},
            400,
            "(Django: ALLOWED_HOSTS) does. It runs; to check the page itself, write: celery_app_check_host",
        ),
        (lambda *_: (301, "http://www.shop.example/"), {}, 301, "write: celery_app_check_host: www.shop.example"),
        (lambda *_: (302, "https://login.example/"), BY_NAME, 302, "redirects to https://login.example, which was not"),
        (lambda _, __, path: (200,) if path == "/there" else (308, "/there"), {}, 200, ""),
    ],
    ids=["all given", "with a port", "to https", "another host", "to its own name", "to a login", "within"],
)
def test_an_application_that_is_healthy_is_not_called_failed(page, answer, options, status, says):
    found, warnings = page_check.fetch(page(answer, **options), wait=0)
    assert found == status
    assert bool(warnings) is bool(says)
    assert all(says.lower() in warning.lower() for warning in warnings), warnings


@pytest.mark.parametrize(
    ("answer", "options", "says"),
    [
        (lambda *_: (500,), {}, "it answers 500 (Internal Server Error)"),
        (lambda *_: (404,), {}, "it answers 404"),
        (lambda *_: (401,), {}, "it answers 401"),
        (shop, {"host": "other.example"}, "400 to celery_app_check_host: other.example. Is that one of"),
        (lambda *_: (302, "/again"), {}, "it answers 302"),
        (lambda host, *_: (302, f"http://{host}/"), {"https": True}, "Write: celery_app_check_https: false"),
    ],
    ids=["error", "missing", "login", "not its host", "round and round", "back to http"],
)
def test_a_page_that_fails_is_told_by_its_status(page, answer, options, says):
    with pytest.raises(OperatorError, match=r".") as why:
        page_check.fetch(page(answer, **options), wait=0)
    assert says in str(why.value)


def test_https_that_the_application_does_not_believe_names_its_setting(page):
    wanted = page(lambda host, _, path: (301, f"https://{host}{path}"), host="shop.example", https=True)
    with pytest.raises(OperatorError, match="SECURE_PROXY_SSL_HEADER"):
        page_check.fetch(wanted, wait=0)


def test_a_proxy_of_the_hosts_environment_is_not_asked_for_a_page_of_the_host_itself(page, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert page_check.fetch(page(lambda *_: (200,)), wait=0)[0] == 200


def test_a_page_that_waits_for_a_busy_worker_is_busy_and_not_failed(page):
    assert page_check.fetch(page(lambda *_: (202,)), wait=0) == (202, [])


def test_a_server_that_does_not_take_the_socket_is_told_how():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        bind = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(OperatorError, match="with uvicorn and daphne: --fd 3, with hypercorn: --bind fd://3"):
            page_check.fetch(Page(bind, "/", "", False, 0.3), wait=0)


def test_a_port_where_nobody_listens_is_told():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        bind = f"127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(OperatorError, match="Connection refused"):
        page_check.fetch(Page(bind, "/", "", False, 2.0), wait=0)


def test_a_page_that_is_closed_for_maintenance_is_no_failure(page, monkeypatch):
    monkeypatch.setattr(Page, "get", lambda _: (503, page_check.CLOSED))
    status, [warning] = page_check.fetch(Page("127.0.0.1:1", "/", "", False, 1.0), 0)
    assert status == 503
    assert "closed for maintenance" in warning
