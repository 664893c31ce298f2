"""Save the newest picture of Flickr's public feed: whole, checked and only once."""

import hashlib
import io
import warnings
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from petct.files import complete_file
from PIL import Image

from photos import feed
from photos.download import DownloadFailed, DownloadTooLarge, fetch
from photos.errors import FeedMalformed, FeedUnreachable, NotAPicture, PictureTooLarge, PictureUnreachable
from photos.models import Photo

FEED_MAX_BYTES = 2 * 1024 * 1024
MAX_PIXELS = 50_000_000
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp"}


def photos_directory() -> Path:
    """Return the directory the picture files lie in."""
    return settings.PETCT_DATA_DIR / "photos"


def save_latest_flickr_image() -> tuple[Photo, bool]:
    """Return the feed's newest photo, and whether it was saved just now rather than before.

    Raises a PhotoError (FeedUnreachable, FeedMalformed, PictureUnreachable, PictureTooLarge, NotAPicture).
    """
    entry = feed.newest(_feed(settings.PETCT_FLICKR_FEED_URL))
    known = Photo.objects.filter(url=entry.picture_url).first()
    if known:
        return known, False
    content = _picture(entry.picture_url)
    kind, (width, height) = check_picture(content, entry.picture_url)
    sha256 = hashlib.sha256(content).hexdigest()
    photo = Photo(
        url=entry.picture_url,
        sha256=sha256,
        filename=sha256 + SUFFIXES[kind],
        width=width,
        height=height,
        title=entry.title[:300],
        author=entry.author[:200],
        page_url=entry.page_url if feed.is_address(entry.page_url) else "",
    )
    return store(photo, content)


def check_picture(content: bytes, url: str) -> tuple[str, tuple[int, int]]:
    """Return Pillow's name of the format, and width and height. Raises NotAPicture or PictureTooLarge."""
    try:
        with warnings.catch_warnings():
            # We have a limit of our own, below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=tuple(SUFFIXES))
            if image.width * image.height > MAX_PIXELS:
                raise PictureTooLarge(
                    f"{url} has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are stored."
                )
            # Reading every pixel finds what a look at the header does not: files cut short, or damaged.
            image.load()
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{url}: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise NotAPicture(f"{url} is no complete {', '.join(SUFFIXES)} image: {error}") from error
    return image.format, image.size


def store(photo: Photo, content: bytes) -> tuple[Photo, bool]:
    """Write file and row together, or neither; return the photo, and whether it is new."""
    directory = photos_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with complete_file(directory, content) as temporary:
        try:
            # The row comes first, since it may be refused; it goes again if the file can't take its place.
            with transaction.atomic():
                photo.save(force_insert=True)
                temporary.replace(directory / photo.filename)
        except IntegrityError:
            # Another worker, or the same picture at another address.
            return Photo.objects.get(Q(url=photo.url) | Q(sha256=photo.sha256)), False
    return photo, True


def _feed(url: str) -> bytes:
    try:
        return fetch(url, FEED_MAX_BYTES)
    except DownloadFailed as error:
        raise FeedUnreachable(f"The feed (PETCT_FLICKR_FEED_URL) can't be read: {error}.") from error
    except DownloadTooLarge as error:
        raise FeedMalformed(f"The feed (PETCT_FLICKR_FEED_URL) is no feed: {error}.") from error


def _picture(url: str) -> bytes:
    try:
        return fetch(url, settings.PETCT_FLICKR_MAX_BYTES)
    except DownloadFailed as error:
        raise PictureUnreachable(f"The picture can't be downloaded: {error}.") from error
    except DownloadTooLarge as error:
        raise PictureTooLarge(f"{error}; the limit is PETCT_FLICKR_MAX_BYTES.") from error
