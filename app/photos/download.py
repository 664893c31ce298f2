"""Fetch an address over HTTP(S), bounded in time and size."""

import time
from http.client import HTTPException
from urllib import request

SOCKET_SECONDS = 10
TOTAL_SECONDS = 60
CHUNK = 64 * 1024


class DownloadFailed(Exception):
    """No answer, an error, or too slow."""


class DownloadTooLarge(Exception):
    """More bytes than allowed."""


def _http_only() -> request.OpenerDirector:
    # No file:, ftp: or data:, nor a redirect to them: a feed is other people's text.
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    opener.addheaders = [("User-Agent", "petct (celery-ops reference application)")]
    return opener


def fetch(url: str, max_bytes: int) -> bytes:
    """Return what lies at `url`. Raises DownloadFailed, or DownloadTooLarge above `max_bytes`."""
    deadline = time.monotonic() + TOTAL_SECONDS
    content = bytearray()
    try:
        with _http_only().open(url, timeout=SOCKET_SECONDS) as answer:
            # read1 returns what has come, so that a trickle of bytes cannot stretch the deadline.
            while chunk := answer.read1(CHUNK):
                content += chunk
                if len(content) > max_bytes:
                    raise DownloadTooLarge(f"{url} has more than {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise DownloadFailed(f"{url} took longer than {TOTAL_SECONDS} s")
            missing = answer.length
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadFailed(f"{url}: {error}") from error
    if missing:
        raise DownloadFailed(f"{url} broke off {missing} bytes early")
    return bytes(content)
