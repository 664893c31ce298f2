"""The picture files."""

from django.http import FileResponse, Http404, HttpRequest
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from photos.flickr import photos_directory
from photos.models import Photo


@cache_control(public=True, max_age=365 * 24 * 3600, immutable=True)
@require_safe
def picture(request: HttpRequest, name: str) -> FileResponse:
    """Send one stored picture; only names from the database lead to a file."""
    photo = get_object_or_404(Photo, filename=name)
    try:
        return FileResponse((photos_directory() / photo.filename).open("rb"))
    except OSError as error:
        raise Http404(f"The file of photo {photo.pk} is gone.") from error
