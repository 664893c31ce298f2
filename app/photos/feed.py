"""Read a photo feed, JSON (Flickr's `format=json`) or Atom, and find its newest picture."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree

from photos.errors import FeedMalformed

ATOM = "{http://www.w3.org/2005/Atom}"
MAX_ADDRESS = 1000
LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Entry:
    """One picture of a feed."""

    picture_url: str
    page_url: str = ""
    title: str = ""
    author: str = ""
    published: datetime = LONG_AGO


def newest(content: bytes) -> Entry:
    """Return the newest entry that has a picture; raise FeedMalformed if there is none."""
    text = content.decode("utf-8-sig", errors="replace").strip()
    entries = _atom_entries(text) if text.startswith("<") else _json_entries(text)
    with_picture = [entry for entry in entries if is_address(entry.picture_url)]
    if not with_picture:
        raise FeedMalformed(f"The feed has {len(entries)} entries, none with the http(s) address of a picture.")
    # The first of equals: feeds list the newest first, dated or not.
    return max(with_picture, key=lambda entry: entry.published)


def is_address(url: str) -> bool:
    """Say whether this is a web address of a length we store."""
    return url.startswith(("http://", "https://")) and len(url) <= MAX_ADDRESS


def _json_entries(text: str) -> list[Entry]:
    # Flickr wraps the feed in a function call unless asked not to, and escapes apostrophes against the rules.
    unwrapped = re.sub(r"^jsonFlickrFeed\((.*)\)$", r"\1", text, flags=re.DOTALL).replace("\\'", "'")
    try:
        items = json.loads(unwrapped)["items"]
        if not isinstance(items, list):
            raise TypeError("items is no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FeedMalformed(f"The feed is neither Atom nor JSON with items ({error}): {text[:80]!r}") from error
    return [_json_entry(item) for item in items if isinstance(item, dict)]


def _json_entry(item: dict) -> Entry:
    media = item.get("media")
    return Entry(
        picture_url=_text(media.get("m")) if isinstance(media, dict) else "",
        page_url=_text(item.get("link")),
        title=_text(item.get("title")),
        # nobody@flickr.com ("somebody")
        author=re.sub(r'^.*\("(.*)"\)$', r"\1", _text(item.get("author"))),
        published=_moment(item.get("published")),
    )


def _atom_entries(text: str) -> list[Entry]:
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise FeedMalformed(f"The feed is broken XML ({error}); it starts {text[:80]!r}.") from error
    entries = []
    for element in root.iter(f"{ATOM}entry"):
        links = {link.get("rel", "alternate"): link.get("href", "") for link in element.iter(f"{ATOM}link")}
        entries.append(
            Entry(
                picture_url=_text(links.get("enclosure")),
                page_url=_text(links.get("alternate")),
                title=_text(element.findtext(f"{ATOM}title")),
                author=_text(element.findtext(f"{ATOM}author/{ATOM}name")),
                published=_moment(element.findtext(f"{ATOM}published")),
            )
        )
    return entries


def _text(value: object) -> str:
    # PostgreSQL stores any character but NUL.
    return value.replace("\0", "").strip() if isinstance(value, str) else ""


def _moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return LONG_AGO
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
