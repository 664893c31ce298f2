"""The front page, and the answer to "is the web server alive?"."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe
from photos.models import Photo
from viewer.models import Record


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """List the records and show the latest photo."""
    records = Record.objects.order_by("userID")[:200]
    return render(request, "petct/index.html", {"records": records, "photo": Photo.objects.latest_saved()})


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Say that this process answers; asks neither database nor broker, whose health is reported elsewhere."""
    return HttpResponse("ok\n", content_type="text/plain")
