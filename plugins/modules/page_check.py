#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Fetch a page of the application as its proxy would; tell one that fails from a check that lacks a setting."""

from __future__ import annotations

DOCUMENTATION = r"""
module: page_check
short_description: Fetch a page of the application as its proxy would
description:
  - Fails unless the page answers 200. An answer of 202 is asked for again, as its task waits for a busy worker.
  - A redirect to https, or a 400 for a host's name that nobody has given, is an answer of a healthy application to an
    incomplete request. It is a warning that names the variable to set.
options:
  bind:
    description: Address and port that the web program listens on.
    type: str
    required: true
  path:
    description: The page.
    type: str
    required: true
  host:
    description: The Host header; empty for O(bind).
    type: str
    default: ""
  https:
    description: Whether to say that the request came by HTTPS (X-Forwarded-Proto).
    type: bool
    default: false
  timeout:
    description: Seconds that an answer may take.
    type: int
    default: 20
  wait:
    description: Seconds to ask again while the answer is 202.
    type: int
    default: 60
attributes:
  check_mode: {support: full, description: The module changes nothing.}
author:
  - celery-ops (@celery-ops)
"""
EXAMPLES = r"""
- page_check:
    bind: 127.0.0.1:8000
    path: /
    host: shop.example
"""
RETURN = r"""
status:
  description: What the page answered in the end.
  returned: success
  type: int
busy:
  description: Whether it still answered 202 in the end.
  returned: success
  type: bool
"""

import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import ansible_collections.celery_ops.kit.plugins.module_utils.compiled  # noqa: F401 - the first, for the others
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.celery_ops.kit.plugins.module_utils.addresses import own_address
from ansible_collections.celery_ops.kit.plugins.module_utils.errors import OperatorError
from ansible_collections.celery_ops.kit.plugins.module_utils.surroundings import take_over

REDIRECTS = {301, 302, 303, 307, 308}
AGAIN = 2.0
"""Seconds between two requests while the answer is 202."""
CLOSED = "maintenance"
"""The header X-Celery-Ops of the listener's answer while the web is closed."""
FOLLOWED = 5
"""Redirects, one after another."""
HOST = "celery_app_check_host"
HTTPS = "celery_app_check_https"


@dataclass
class Page:
    """A page, and how to ask for it."""

    bind: str
    path: str
    host: str
    https: bool
    timeout: float

    @property
    def server(self) -> str:
        """The address to connect to: a server that listens everywhere is asked on loopback."""
        host, _, port = self.bind.rpartition(":")
        address = own_address(host.strip("[]"))
        return f"{f'[{address}]' if ':' in address else address}:{port}"

    def url(self) -> str:
        """The page's address as the application sees it."""
        return f"{'https' if self.https else 'http'}://{self.host or self.server}{self.path}"

    def get(self) -> tuple[int, str]:
        """Return status and Location of one request."""
        connection = http.client.HTTPConnection(self.server, timeout=self.timeout)
        headers = {"Host": self.host or self.server, "User-Agent": "celery-ops"}
        try:
            connection.request(
                "GET", self.path, headers=headers | ({"X-Forwarded-Proto": "https"} if self.https else {})
            )
            answer = connection.getresponse()
            if answer.status == 503 and answer.headers.get("X-Celery-Ops") == CLOSED:
                return answer.status, CLOSED
            return answer.status, answer.headers.get("Location", "")
        except TimeoutError:
            raise OperatorError(
                f"no answer within {self.timeout:g} s. If the log has no request, the server does not accept from the "
                "socket that it is handed as file descriptor 3; celery_web_command needs, with uvicorn and daphne: "
                "--fd 3, with hypercorn: --bind fd://3, with uwsgi: --http-socket fd://3"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise OperatorError(f"{type(error).__name__}: {error}; look at web.log") from None
        finally:
            connection.close()


def fetch(page: Page, wait: float) -> tuple[int, list[str]]:
    """Return the last status, 202 where it stays that, and warnings; raise OperatorError where the page fails."""
    deadline = time.monotonic() + wait
    for _ in range(FOLLOWED + 1):
        status, location = page.get()
        while status == 202 and time.monotonic() < deadline:
            time.sleep(AGAIN)
            status, location = page.get()
        if status not in REDIRECTS or not location:
            break
        if elsewhere := list(leads_away(page, location)):
            return status, elsewhere
        target = urlsplit(urljoin(page.url(), location))
        page.path = target.path + (f"?{target.query}" if target.query else "")
    if status == 400 and not page.host:
        return status, [
            f"{page.path} answers 400 to the host {page.server}: an application with a list of its hosts (Django: "
            f"ALLOWED_HOSTS) does. It runs; to check the page itself, write: {HOST}: <one of those hosts>"
        ]
    if status == 400:
        raise OperatorError(
            f"it answers 400 to {HOST}: {page.host}. Is that one of the application's hosts (Django: ALLOWED_HOSTS)?"
        )
    if (status, location) == (503, CLOSED):
        return status, [
            f"{page.path} answers 503: the application is closed for maintenance. Open it: ansible-playbook "
            "playbooks/maintenance.yml -e celery_app_maintenance=off"
        ]
    if status not in (200, 202):
        raise OperatorError(f"it answers {status} ({http.client.responses.get(status, 'unknown')}); look at web.log")
    return status, []


def leads_away(page: Page, location: str) -> Iterator[str]:
    """Yield why a redirect is not followed; nothing for one within the application. Raises OperatorError for a loop."""
    target, asked = urlsplit(urljoin(page.url(), location)), urlsplit(page.url())
    if target == asked and page.https:
        raise OperatorError(
            "it redirects to https though the request says that it came by that. The application has to "
            "believe X-Forwarded-Proto; for Django write: SECURE_PROXY_SSL_HEADER = ('HTTP_X_FORWARDED_PROTO', 'https')"
        )
    if target.netloc == asked.netloc and target.scheme == asked.scheme:
        return
    same_host = target.hostname == asked.hostname
    if same_host and target.scheme == "https":
        yield (
            f"{page.path} redirects to https. The application runs; to check the page itself, write: {HTTPS}: true "
            "(sends X-Forwarded-Proto: https, as a proxy does; Django believes it with SECURE_PROXY_SSL_HEADER)"
        )
    elif same_host and page.https:
        raise OperatorError(f"it redirects from https to {target.scheme}. Write: {HTTPS}: false")
    else:
        fix = f"{HOST}: {target.hostname}" + (f" and {HTTPS}: true" if target.scheme == "https" else "")
        yield (
            f"{page.path} redirects to {target.scheme}://{target.netloc}, which was not requested. The application "
            f"runs; if that is its own address, write: {fix}"
        )


def main() -> None:
    """Entry point."""
    take_over()
    module = AnsibleModule(
        argument_spec={
            "bind": {"type": "str", "required": True},
            "path": {"type": "str", "required": True},
            "host": {"type": "str", "default": ""},
            "https": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 20},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    want: dict[str, Any] = module.params
    wait = want.pop("wait")
    page = Page(**want)
    try:
        status, warnings = fetch(page, wait)
    except OperatorError as why:
        module.fail_json(msg=f"The page {page.url()}: {why}")
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=False, status=status, busy=status == 202)


if __name__ == "__main__":
    main()
