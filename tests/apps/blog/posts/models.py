"""A post and how many words it has."""

from django.db import models


class Post(models.Model):
    """What somebody wrote."""

    text = models.TextField()
    words = models.IntegerField(default=0)
