"""The viewer's page and the volume it draws."""

import logging

from django.core import signing
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from viewer import services
from viewer.errors import ServiceUnreachable
from viewer.models import Record
from viewer.slices import COLOURS, PLANES, Levels, Plane, data_uri, levels_of, png

WAIT_SECONDS = 1.0
logger = logging.getLogger(__name__)


@never_cache
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Ask a worker for a user's volume, wait up to a second, show it or say that it is on its way."""
    user_id = request.GET.get("userID", "")
    record = Record.objects.filter(userID=user_id).first()
    if record is None:
        return render(request, "viewer/unknown.html", {"user_id": user_id}, status=404)
    page = {"record": record, "colours": COLOURS, "wait_seconds": WAIT_SECONDS}
    try:
        result = _earlier_request(request, record) or services.ask_for_volume(record)
        ticket = services.ticket_for(result, record)
        page |= {"ticket": ticket, "volume_url": reverse("volume", args=[ticket])}
        array = services.volume_of(result, seconds=WAIT_SECONDS)
    except ServiceUnreachable as error:
        logger.error("%s", error)
        return render(request, "viewer/unreachable.html", page | {"error": error}, status=503)
    except Exception as error:
        logger.error("Volume of %r: %s: %s", user_id, type(error).__name__, error)
        return render(request, "viewer/failed.html", page | _named(error), status=500)
    levels = None if array is None else levels_of(array)
    page |= {"ready": array is not None, "planes": [_plane(request, plane, levels) for plane in PLANES]}
    return render(request, "viewer/show.html", page, status=202 if array is None else 200)


@never_cache
@require_safe
def volume(request: HttpRequest, ticket: str) -> HttpResponse:
    """Return a ticket's volume as raw 8-bit levels (200), "waiting" (202), or the task's error by name (500).

    The levels are in C-order; the headers Volume-Shape and Volume-Window say how to read them.
    """
    try:
        result, _record = services.redeem(ticket)
    except signing.BadSignature:
        return JsonResponse({"error": "BadTicket", "message": "Reload the page; this URL has expired."}, status=404)
    try:
        array = services.volume_of(result)
    except ServiceUnreachable as error:
        return JsonResponse(_named(error), status=503)
    except Exception as error:
        return JsonResponse(_named(error), status=500)
    if array is None:
        return JsonResponse({"state": "waiting"}, status=202)
    levels = levels_of(array)
    return HttpResponse(
        levels.voxels.tobytes(),
        content_type="application/octet-stream",
        headers={
            "Volume-Shape": ",".join(map(str, levels.voxels.shape)),
            "Volume-Window": f"{levels.low:.6g},{levels.high:.6g}",
        },
    )


def _earlier_request(request: HttpRequest, record: Record) -> services.AsyncResult | None:
    """Return the result an earlier view of this page asked for: reloading without script asks only once."""
    try:
        result, record_id = services.redeem(request.GET.get("ticket", ""))
    except signing.BadSignature:
        return None
    return result if record_id == record.pk else None


def _named(error: Exception) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _plane(request: HttpRequest, plane: Plane, levels: Levels | None) -> dict[str, object]:
    """Return what the page needs to draw one plane; the slice in the address, or the middle one."""
    drawn = {"name": plane.name, "edges": plane.edges}
    if levels is None:
        return drawn
    last = levels.count(plane) - 1
    wanted = request.GET.get(plane.name, "")
    index = (
        min(int(wanted), last)
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 6
        else levels.count(plane) // 2
    )
    width, height = levels.size(plane)
    picture = data_uri(png(levels, plane, index))
    return drawn | {"index": index, "last": last, "width": width, "height": height, "picture": picture}
