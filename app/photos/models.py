"""The photos that were saved."""

from django.db import models

from photos.feed import MAX_ADDRESS


class PhotoManager(models.Manager):
    """Photos, and the newest of them."""

    def latest_saved(self) -> "Photo | None":
        """Return the photo saved last, or None."""
        return self.order_by("-saved_at", "-pk").first()


class Photo(models.Model):
    """One photo, stored once: neither its address nor its content comes twice."""

    url = models.URLField(max_length=MAX_ADDRESS, unique=True, help_text="Where the picture was downloaded from.")
    sha256 = models.CharField(max_length=64, unique=True)
    filename = models.CharField(max_length=80, help_text="In the directory photos of the data directory.")
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    title = models.CharField(max_length=300, blank=True)
    author = models.CharField(max_length=200, blank=True)
    page_url = models.URLField(max_length=MAX_ADDRESS, blank=True)
    saved_at = models.DateTimeField(auto_now_add=True)

    objects = PhotoManager()

    def __str__(self) -> str:
        return self.title or self.filename
