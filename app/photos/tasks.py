"""What the workers do for the photos; beat sends it every 15 minutes (petct/celery.py)."""

from celery import shared_task
from celery.utils.log import get_task_logger

from photos.flickr import save_latest_flickr_image

logger = get_task_logger(__name__)


# Nobody waits for the result, but a failure is kept: it says by its name what is wrong with the feed.
@shared_task(name="task_save_latest_flickr_image", ignore_result=True, store_errors_even_if_ignored=True)
def task_save_latest_flickr_image() -> None:
    """Save the newest public Flickr photo, unless we have it."""
    photo, new = save_latest_flickr_image()
    if new:
        logger.info("Saved image from Flickr: %s (%s)", photo.filename, photo.url)
    else:
        logger.info("Newest image from Flickr is here already: %s", photo.filename)
