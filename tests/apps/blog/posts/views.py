"""The pages."""

from django.http import HttpRequest, HttpResponse

from posts.models import Post
from posts.tasks import count as count_task


def index(request: HttpRequest) -> HttpResponse:
    """How many posts there are."""
    return HttpResponse(f"{Post.objects.count()} posts")


def count(request: HttpRequest, text: str) -> HttpResponse:
    """Let a worker count, and wait for it."""
    return HttpResponse(str(count_task.delay(text).get(timeout=10)))
