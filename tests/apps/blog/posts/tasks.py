"""Count words."""

from celery import shared_task

from posts.models import Post


@shared_task
def count(text: str) -> int:
    """Keep a post; return the number of its words."""
    return Post.objects.create(text=text, words=len(text.split())).words


@shared_task(ignore_result=True)
def count_all() -> None:
    """Count every post again; the scheduler sends it."""
    for post in Post.objects.all():
        Post.objects.filter(pk=post.pk).update(words=len(post.text.split()))
