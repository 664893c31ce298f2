"""Rules for the addresses of somebody else's broker and result store. They hold passwords: no message shows one."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

BACKENDS = ("redis", "app", "none")
OPTIONS = frozenset({"heartbeat", "connect_timeout", "login_method"})
"""What the client takes after a `?`. It takes nothing of TLS there: `ssl_...` options are for Redis."""
SYNONYMS = ("pyamqp", "py-amqp", "librabbitmq")
EXAMPLE = "amqps://shop:{{ vault_broker_password | urlencode | replace('/', '%2F') }}@rabbitmq.example.com:5671/shop"


def broker_url(text: str) -> str:
    """What is wrong with the broker's URL, or with one of several, and what to write; "" for nothing."""
    urls = text.split(";") if text else []
    for number, url in enumerate(urls, 1):
        if problem := _of_one(url):
            which = f", URL {number} of {len(urls)}," if len(urls) > 1 else ""
            return f"(not shown){which} {problem}"
    for part, of in (("port", lambda url: urlsplit(url).port), ("vhost", lambda url: urlsplit(url).path.strip("/"))):
        if len({bool(of(url)) for url in urls}) > 1:
            return (
                f"(not shown) has URLs with a {part} and URLs without: there Celery's client takes the {part} "
                f"of the URL before. Write the {part} in each of them."
            )
    return ""


def _of_one(url: str) -> str:
    write = f'Write: celery_app_broker_url: "{EXAMPLE}"'
    scheme, separator, _ = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z0-9+.-]+", scheme):
        return f"is not a URL. {write}"
    if scheme in SYNONYMS:
        return f"begins with {scheme}://, another name of Celery for amqp://. Write: amqp://... (or amqps://...)"
    if scheme not in ("amqp", "amqps"):
        return (
            f"begins with {scheme}://, and the kit works with RabbitMQ alone (amqp:// or amqps://): no "
            f"other broker gives a task of a worker that died to the next one, and counts how often. {write}"
        )
    try:
        parts = urlsplit(url)
        host, user, options = parts.hostname, parts.username, parts.query
        _ = parts.port
    except ValueError:  # its words would show a part of the password
        host, user, options = None, None, ""
    if re.search(r"\s", url) or not host or url.count("@") > 1:
        return (
            "can't be parsed into user, password, host, port and vhost. In a password every special character "
            f"has to be encoded (@ as %40, / as %2F): the filter urlencode does it, except for the /. {write}"
        )
    if not user:
        return f"names no user. {write}"
    for option in parse_qs(options, keep_blank_values=True):
        if option not in OPTIONS:
            return (
                f"has the option {option}, which Celery's client does not know. Write it in the application's "
                "settings: broker_use_ssl, broker_transport_options. A CA of your own also goes into "
                "celery_app_environment: {SSL_CERT_FILE: /etc/ssl/certs/your-ca.pem}"
            )
    return ""


def result_backend(text: str) -> str:
    """What is wrong with the result backend, and what to write; "" for nothing."""
    if text in BACKENDS:
        return ""
    if re.fullmatch(r"[\w+.-]*", text):  # a word is no secret
        return (
            f'is "{text}": it has to be {", ".join(BACKENDS)} or a URL. Do the application\'s own settings name its '
            "result backend (as django-db)? Write: celery_app_result_backend: app"
        )
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) or re.search(r"\s", text):
        return "(not shown) is not a URL. Write: celery_app_result_backend: redis, app, none, or a URL like redis://host:6379/1"
    return ""


def _derived(instead: str) -> Callable[[str], str]:
    return lambda _: f"is made by the kit, to be read only. Leave it out, and write {instead}."


ADDRESSES: dict[str, Callable[[str], str]] = {
    "celery_app_broker_url": broker_url,
    "celery_app_result_backend": result_backend,
    "celery_app_broker_url_effective": _derived("celery_app_broker_url"),
    "celery_app_redis_url": _derived("celery_app_result_backend"),
}
"""By variable, what is wrong with a value."""
