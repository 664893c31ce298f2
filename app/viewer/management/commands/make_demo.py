"""`python manage.py make_demo`: a made-up patient to look at."""

import json
import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from petct.files import complete_file

from viewer.models import Record
from viewer.phantom import SHAPE, phantom

FILEPATH = "demo.mpv"


class Command(BaseCommand):
    """Make the synthetic volume and its record, userID `demo`; a second run changes nothing."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Print one line of JSON whose "state" is created or unchanged."""
        wanted = {"filepath": FILEPATH, "shape": list(SHAPE), "dtype": "<f4"}
        path = settings.PETCT_DATA_DIR / FILEPATH
        expected = Record(userID="demo", **wanted).nbytes
        try:
            changed = not path.is_file() or path.stat().st_size != expected
            if changed:
                path.parent.mkdir(parents=True, exist_ok=True)
                with complete_file(path.parent, phantom().tobytes()) as temporary:
                    temporary.replace(path)
        except OSError as error:
            raise CommandError(
                f"{path}: {error.strerror}. The directory (PETCT_DATA_DIR) must be writable: "
                f"mkdir -p {path.parent} && chown {os.getuid()} {path.parent}"
            ) from error
        record, created = Record.objects.get_or_create(userID="demo", defaults=wanted)
        differing = [name for name, value in wanted.items() if getattr(record, name) != value]
        if differing:
            for name in differing:
                setattr(record, name, wanted[name])
            record.save()
        state = "created" if changed or created or differing else "unchanged"
        self.stdout.write(json.dumps({"state": state, "userID": "demo", "file": str(path), "shape": list(SHAPE)}))
