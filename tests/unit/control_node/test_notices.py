"""Notices reach a real HTTP server as it wants them; one that fails or hangs costs its deadline and no more."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.celery_ops.kit.plugins.action.deploy_lock import teller
from ansible_collections.celery_ops.kit.plugins.action.deploy_notice import targets_of
from ansible_collections.celery_ops.kit.plugins.module_utils import notices
from ansible_collections.celery_ops.kit.plugins.module_utils.notices import Notice, changes, send_all
from ansible_collections.celery_ops.kit.plugins.plugin_utils.inventory_rules import variables as rules

NOTICE = Notice("failed", "shop", "anna@control", release="0123456789ab", stage="staging", detail="workers on web1: no")


class Server:
    """A server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.status, self.pause = 200, 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.seen.append((self.path, dict(self.headers), body))
                if server.pause:  # a byte at a time, for as long as somebody listens
                    self.send_response(200)
                    self.end_headers()
                    for _ in range(int(server.pause * 10)):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.1)
                    return
                self.send_response(server.status)
                self.send_header("Location", f"{server.url}/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()


def test_a_webhook_gets_what_slack_takes(server):
    assert send_all([{"webhook": f"{server.url}/services/T0/secret"}], NOTICE) == []
    [(path, headers, body)] = server.seen
    assert path == "/services/T0/secret"
    assert headers["Content-Type"] == "application/json"
    first, detail = body["text"].splitlines()
    assert first == "shop (staging): deploy FAILED, release 0123456789ab, by anna@control"
    assert detail == "workers on web1: no"


def test_grafana_gets_an_annotation_with_its_token(server):
    before = time.time() * 1000
    assert send_all([{"grafana": server.url, "token": "t0ken"}], NOTICE) == []
    [(path, headers, body)] = server.seen
    assert path == "/api/annotations"
    assert headers["Authorization"] == "Bearer t0ken"
    assert body["tags"] == ["deploy", "shop", "failed", "staging"]
    assert before - 1 <= body["time"] <= time.time() * 1000


def test_sentry_gets_a_release_and_its_deploy_and_only_when_it_is_in_service(server):
    sentry = {"sentry": server.url, "token": "t", "organization": "acme", "projects": ["shop"]}
    assert send_all([sentry], NOTICE) == []
    assert server.seen == []
    assert send_all([sentry], Notice("finished", "shop", "anna", release="0123456789ab", stage="staging")) == []
    release, deploy = server.seen
    assert release[0] == "/api/0/organizations/acme/releases/"
    assert release[2] == {"version": "shop@0123456789ab", "projects": ["shop"]}
    assert deploy[0] == "/api/0/organizations/acme/releases/shop@0123456789ab/deploys/"
    assert deploy[2]["environment"] == "staging"


def test_a_command_reads_the_notice_and_finds_the_rest_in_its_environment(tmp_path):
    script = tmp_path / "tell"
    script.write_text(f"#!/bin/sh\n(cat; echo $CELERY_OPS_EVENT $CELERY_OPS_APP) > {tmp_path}/told\n")
    script.chmod(0o755)
    assert send_all([{"command": str(script)}], NOTICE) == []
    lines = (tmp_path / "told").read_text().splitlines()
    assert lines == [*NOTICE.text.splitlines(), "failed shop"]


def test_only_the_events_that_a_target_wants(server):
    assert send_all([{"webhook": server.url, "events": ["died"]}], NOTICE) == []
    assert server.seen == []


def test_what_fails_is_said_without_the_secret_and_the_others_get_theirs(server):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/secret"
    problems = send_all([{"webhook": closed}, {"command": "/no/such"}, {"webhook": server.url}], NOTICE)
    assert len(problems) == 2
    assert problems[0].startswith("celery_app_notify[0] (webhook 127.0.0.1) got no notice: ConnectionRefusedError")
    assert "secret" not in str(problems)
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [302, 500])
def test_an_error_and_a_redirect_are_said_and_nothing_follows_it(server, status):
    server.status = status
    assert f"it answers {status}" in send_all([{"webhook": f"{server.url}/x", "token": "t"}], NOTICE)[0]
    assert [path for path, *_ in server.seen] == ["/x"]


def test_a_server_that_hangs_costs_its_deadline_alone(server):
    server.pause = 30.0
    begun = time.monotonic()
    problems = send_all(
        [{"webhook": server.url, "timeout": 0.5}, {"webhook": f"{server.url}/2", "timeout": 0.5}], NOTICE
    )
    assert len(problems) == 2
    assert "no answer within 0.5 s" in problems[0]
    assert time.monotonic() - begun < 10


def test_what_changed_is_bounded():
    lines = [f"{n:07x} anna: change {n}" for n in range(30)]
    assert changes(lines) == [*lines[:20], "... and 10 more"]
    assert changes(["x" * 500, ""]) == ["x" * 120]


class Inventory(dict):
    """Variables as Variables has them."""


def variables(server: Server, host: str = "web1", **more: Any) -> Inventory:
    known = {
        "celery_app_notify": [{"webhook": server.url}],
        "inventory_hostname": host,
        "ansible_play_hosts_all": ["web1", "web2"],
        "celery_app_stage": "test",
    }
    return Inventory({**known, **more})


def test_a_webhook_is_reached_by_the_proxy_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    assert send_all([{"webhook": "http://hooks.invalid/T1"}], NOTICE) == []
    assert server.seen[0][0] == "http://hooks.invalid/T1"
    monkeypatch.setenv("no_proxy", "hooks.invalid")
    assert "got no notice" in send_all([{"webhook": "http://hooks.invalid/T1"}], NOTICE)[0]
    assert len(server.seen) == 1


OPTIONS = {"id": "control-1-2", "app": "shop", "who": "anna@control", "what": "deploy"}


def test_the_keeper_of_the_first_host_tells_that_a_run_died_once(server, monkeypatch, tmp_path):
    monkeypatch.setattr(notices.tempfile, "gettempdir", lambda: str(tmp_path))
    teller(OPTIONS, variables(server, "web2"))(True)
    teller(OPTIONS, variables(server))(False)
    assert server.seen == []
    teller(OPTIONS, variables(server))(True)
    assert "deploy DIED" in server.seen[0][2]["text"]
    notices.mark_ended("control-1-2")
    teller(OPTIONS, variables(server))(True)
    assert len(server.seen) == 1
    assert list(tmp_path.rglob("*.ended")) == []


def test_nothing_wrong_in_the_targets_breaks_a_run():
    assert targets_of({"celery_app_notify": "https://hooks.slack.com"}) == []
    assert targets_of({}) == []


class Host:
    def __init__(self, targets: Any) -> None:
        self.given = {"celery_app_notify": targets}


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"webhok": "https://x"}, "it is of 0 kinds"),
        ({"webhook": "https://x", "command": "y"}, "it is of 2 kinds"),
        ("https://x", "it is not a mapping"),
        ({"webhook": "hooks.slack.com/secret"}, "not an http or https URL"),
        ({"sentry": "https://sentry.io", "token": "secret"}, "lacks organization, projects"),
        ({"webhook": "https://x", "event": ["died"]}, "did you mean events?"),
        ({"webhook": "https://x", "events": ["dies"]}, "did you mean died?"),
        ({"webhook": "https://x", "events": "died"}, "events is not a list. Write: events: [failed, died]"),
        ({"webhook": "https://x", "events": 5}, "events is not a list"),
        ({"webhook": "https://x", "timeout": "secret"}, "timeout is not a number of seconds"),
        ({"webhook": "https://x", "timeout": 0}, "timeout is not a number of seconds"),
        ({"command": "tell 'secret"}, "its command can't be split into words. Write: command:"),
        ({"command": ["tell", "secret"]}, "its command can't be split into words"),
        ({"webhook": "https://x", 1: "y", "z": "secret"}, "has the key 1"),
        (
            {"sentry": "https://sentry.io", "token": "secret", "organization": "acme", "projects": "shop"},
            "projects is not a list. Write: projects: [shop]",
        ),
    ],
)
def test_a_bad_target_is_refused_and_not_shown(target, says):
    found = list(rules.notify(Host([target])))
    assert found
    assert says in found[0].text
    assert "secret" not in found[0].text


@pytest.mark.parametrize(
    "target",
    [
        {"webhook": "https://x/y", "events": ["died"], "timeout": "10"},
        {"webhook": "{{ vault_hook }}", "events": "{{ events }}", "timeout": "{{ seconds }}"},
        {"command": "logger -t 'a deploy'"},
        {"command": "{{ vault_command }}"},
    ],
)
def test_a_good_one_is_not(target):
    assert list(rules.notify(Host([target]))) == []


def test_only_targets_that_name_the_watchdog_are_for_the_hosts():
    everything = {"webhook": "https://a.example", "events": ["failed", "watchdog"]}
    targets = [everything, {"webhook": "https://b.example"}, {"command": "x", "events": ["died"]}]
    assert notices.of_hosts(targets) == [everything]
    notice = Notice(notices.WATCHDOG, "shop", "w1", changes=["default: deaf: SIGTERM sent"])
    assert notice.text == "shop: the watchdog acted, on w1\ndefault: deaf: SIGTERM sent"
    assert send_all(targets[1:], notice) == []
    assert notices.requests_of({"sentry": "https://s.example", "organization": "o", "projects": ["p"]}, notice, 0) == []
