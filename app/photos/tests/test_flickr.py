import logging
import socket

import pytest
from PIL import Image

from photos import download, errors, flickr
from photos.flickr import photos_directory, save_latest_flickr_image
from photos.models import Photo
from photos.tasks import task_save_latest_flickr_image
from photos.tests.conftest import picture

pytestmark = pytest.mark.django_db


def files():
    return sorted(path.name for path in photos_directory().iterdir()) if photos_directory().exists() else []


def nothing_left():
    return files() == [] and not Photo.objects.exists()


def test_saves_the_newest_picture(site):
    url = site.serve("/cat.jpg", picture())
    site.feed(site.item(url, author='nobody@flickr.com ("Ann")'))

    photo, new = save_latest_flickr_image()

    assert new
    assert (photo.title, photo.author, photo.page_url) == ("A cat", "Ann", "https://example.org/cat")
    assert (photo.width, photo.height) == (60, 40)
    assert files() == [photo.filename]
    assert (photos_directory() / photo.filename).read_bytes() == picture()
    assert Photo.objects.latest_saved() == photo


def test_the_same_address_is_downloaded_once(site):
    site.feed(site.item(site.serve("/cat.jpg", picture())))

    save_latest_flickr_image()
    photo, new = save_latest_flickr_image()

    assert not new
    assert site.asked == ["/feed", "/cat.jpg", "/feed"]
    assert Photo.objects.get() == photo


def test_the_same_picture_at_another_address_is_stored_once(site):
    site.feed(site.item(site.serve("/cat.jpg", picture())))
    first, _ = save_latest_flickr_image()
    site.feed(site.item(site.serve("/same-cat.jpg", picture())))

    assert save_latest_flickr_image() == (first, False)
    assert files() == [first.filename]


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("GIF", ".gif"), ("WEBP", ".webp")])
def test_other_kinds_of_picture(site, kind, suffix):
    site.feed(site.item(site.serve("/cat", picture(kind=kind))))

    assert save_latest_flickr_image()[0].filename.endswith(suffix)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Sorry</html>",
        picture()[:300],
        picture(kind="PNG")[:-30],
        picture(kind="BMP"),
        b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_whole_picture_is_not_stored(site, content):
    site.feed(site.item(site.serve("/cat.jpg", content, Content_Type="image/jpeg")))

    with pytest.raises(errors.NotAPicture):
        save_latest_flickr_image()
    assert nothing_left()


def test_too_many_bytes(site, settings):
    settings.PETCT_FLICKR_MAX_BYTES = 400
    site.feed(site.item(site.serve("/cat.jpg", picture())))

    with pytest.raises(errors.PictureTooLarge, match="more than 400 bytes; the limit is PETCT_FLICKR_MAX_BYTES"):
        save_latest_flickr_image()
    assert nothing_left()


def test_too_many_pixels(site, monkeypatch):
    monkeypatch.setattr(flickr, "MAX_PIXELS", 1000)
    site.feed(site.item(site.serve("/cat.jpg", picture())))

    with pytest.raises(errors.PictureTooLarge, match="60x40 pixels"):
        save_latest_flickr_image()
    assert nothing_left()


def test_a_decompression_bomb(site, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    site.feed(site.item(site.serve("/cat.jpg", picture())))

    with pytest.raises(errors.PictureTooLarge):
        save_latest_flickr_image()
    assert nothing_left()


def test_picture_missing(site):
    site.feed(site.item(site.url + "/gone.jpg"))

    with pytest.raises(errors.PictureUnreachable, match="404"):
        save_latest_flickr_image()
    assert nothing_left()


def test_connection_breaks_off(site):
    site.feed(site.item(site.serve("/cat.jpg", picture(), Content_Length="100000")))

    with pytest.raises(errors.PictureUnreachable, match="broke off"):
        save_latest_flickr_image()
    assert nothing_left()


def test_no_file_is_read_through_a_redirect(site, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(picture())
    site.feed(site.item(site.serve("/cat.jpg", b"", 302, Location=f"file://{tmp_path}/secret.jpg")))

    with pytest.raises(errors.PictureUnreachable):
        save_latest_flickr_image()
    assert nothing_left()


def test_feed_down(settings):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        settings.PETCT_FLICKR_FEED_URL = f"http://127.0.0.1:{unused.getsockname()[1]}/feed"

    with pytest.raises(errors.FeedUnreachable, match="PETCT_FLICKR_FEED_URL"):
        save_latest_flickr_image()


@pytest.mark.parametrize("url", ["not an address", "file:///etc/passwd", "http://[broken", "ftp://127.0.0.1/x"])
def test_feed_address_that_is_none(settings, url):
    settings.PETCT_FLICKR_FEED_URL = url

    with pytest.raises(errors.FeedUnreachable):
        save_latest_flickr_image()


def test_feed_with_an_error(site):
    site.serve("/feed", b"busy", 503)

    with pytest.raises(errors.FeedUnreachable, match="503"):
        save_latest_flickr_image()


def test_feed_malformed(site):
    site.serve("/feed", b"<html>")

    with pytest.raises(errors.FeedMalformed):
        save_latest_flickr_image()


def test_feed_without_end(site, monkeypatch):
    monkeypatch.setattr(flickr, "FEED_MAX_BYTES", 1000)
    site.serve("/feed", b" " * 2000)

    with pytest.raises(errors.FeedMalformed, match="more than 1000 bytes"):
        save_latest_flickr_image()


def test_silence_ends(settings, monkeypatch):
    monkeypatch.setattr(download, "SOCKET_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.PETCT_FLICKR_FEED_URL = f"http://127.0.0.1:{silent.getsockname()[1]}/feed"
        with pytest.raises(errors.FeedUnreachable, match="timed out"):
            save_latest_flickr_image()


def test_a_trickle_ends(site, monkeypatch):
    monkeypatch.setattr(download, "TOTAL_SECONDS", -1)
    site.feed()

    with pytest.raises(errors.FeedUnreachable, match="took longer"):
        save_latest_flickr_image()


def test_a_file_that_cannot_take_its_place_leaves_no_row(site):
    site.feed(site.item(site.serve("/cat.jpg", picture())))
    photo, _ = save_latest_flickr_image()
    Photo.objects.all().delete()
    (photos_directory() / photo.filename).unlink()
    # A directory in the way, not empty.
    (photos_directory() / photo.filename / "x").mkdir(parents=True)

    with pytest.raises(OSError):
        save_latest_flickr_image()
    assert not Photo.objects.exists()
    assert files() == [photo.filename]


def test_the_task_logs_what_it_did(site, caplog):
    site.feed(site.item(site.serve("/cat.jpg", picture())))
    with caplog.at_level(logging.INFO):
        task_save_latest_flickr_image()
        task_save_latest_flickr_image()

    assert [record.message.split(":")[0] for record in caplog.records if record.name == "photos.tasks"] == [
        "Saved image from Flickr",
        "Newest image from Flickr is here already",
    ]


def test_the_task_fails_under_the_error_s_name(site):
    site.serve("/feed", b"busy", 503)
    failed = task_save_latest_flickr_image.apply()
    site.feed(site.item(site.serve("/cat.jpg", picture())))
    succeeded = task_save_latest_flickr_image.apply()

    assert (failed.state, type(failed.result)) == ("FAILURE", errors.FeedUnreachable)
    assert (succeeded.state, succeeded.result) == ("SUCCESS", None)


def test_the_index_shows_the_latest(site, client):
    assert "No photo yet" in client.get("/").text
    site.feed(site.item(site.serve("/cat.jpg", picture()), title="<i>Cat</i>", link="javascript:alert(1)"))
    photo, _ = save_latest_flickr_image()

    page = client.get("/").text

    assert f'src="/photos/{photo.filename}"' in page
    assert "&lt;i&gt;Cat&lt;/i&gt;" in page
    assert "javascript:" not in page
    answer = client.get(f"/photos/{photo.filename}")
    assert b"".join(answer.streaming_content) == picture()
    assert answer["Content-Type"] == "image/jpeg"


def test_a_lost_file_is_a_404(site, client):
    site.feed(site.item(site.serve("/cat.jpg", picture())))
    photo, _ = save_latest_flickr_image()
    (photos_directory() / photo.filename).unlink()

    assert client.get(f"/photos/{photo.filename}").status_code == 404
    assert client.get("/photos/unknown.jpg").status_code == 404
