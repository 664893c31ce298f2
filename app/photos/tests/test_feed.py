import json
from datetime import UTC, datetime

import pytest

from photos import feed
from photos.errors import FeedMalformed

ATOM = """<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <entry><title>Old</title><published>2024-01-01T00:00:00Z</published>
    <link rel="alternate" href="https://example.org/old"/><link rel="enclosure" href="https://example.org/old.jpg"/></entry>
  <entry><title>New &amp; shiny</title><published>2025-01-01T00:00:00Z</published><author><name>Ann</name></author>
    <link rel="alternate" href="https://example.org/new"/><link rel="enclosure" href="https://example.org/new.jpg"/></entry>
  <entry><title>No picture</title><published>2026-01-01T00:00:00Z</published></entry>
</feed>"""


def items(*entries):
    return json.dumps({"items": entries}).encode()


def test_json_newest_by_date():
    entry = feed.newest(
        items(
            {"media": {"m": "https://example.org/old.jpg"}, "published": "2024-05-01T10:00:00Z"},
            {
                "media": {"m": "https://example.org/new.jpg"},
                "published": "2024-05-02T10:00:00Z",
                "title": " A cat ",
                "link": "https://example.org/cat",
                "author": 'nobody@flickr.com ("Ann")',
            },
        )
    )

    assert entry == feed.Entry(
        "https://example.org/new.jpg", "https://example.org/cat", "A cat", "Ann", datetime(2024, 5, 2, 10, tzinfo=UTC)
    )


def test_json_without_dates_takes_the_first():
    content = items({"media": {"m": "https://example.org/1.jpg"}}, {"media": {"m": "https://example.org/2.jpg"}})

    assert feed.newest(content).picture_url == "https://example.org/1.jpg"


def test_json_as_flickr_really_sends_it():
    content = b'jsonFlickrFeed({"items":[{"title":"It\\\'s","media":{"m":"https://example.org/1.jpg"}}]})'

    assert feed.newest(content).title == "It's"
    assert feed.newest(b"\xef\xbb\xbf" + items({"media": {"m": "https://e.org/1.jpg"}})).picture_url


def test_atom_newest_by_date():
    entry = feed.newest(ATOM.encode())

    assert (entry.picture_url, entry.title, entry.author) == ("https://example.org/new.jpg", "New & shiny", "Ann")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Service unavailable",
        b"<html><body>Sorry</body></html>",
        b"<feed",
        b"{}",
        b"[]",
        b'{"items": {}}',
        b"[" * 100_000,
        items(),
        items("text", None, 7),
        items({"media": None}, {"media": {"m": None}}, {}),
        items({"media": {"m": "file:///etc/passwd"}}),
        items({"media": {"m": "https://example.org/" + "x" * 1000}}),
        b'<feed xmlns="http://www.w3.org/2005/Atom"/>',
        b"\xff\xfe\x00",
    ],
)
def test_anything_else_is_malformed(content):
    with pytest.raises(FeedMalformed):
        feed.newest(content)
