"""The Celery application: `celery -A petct …` finds it here.

Broker and result store come from CELERY_BROKER_URL and CELERY_RESULT_BACKEND, which Celery reads by itself.
"""

import os

from celery import Celery
from celery.schedules import crontab

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "petct.settings")

app = Celery("petct")
app.config_from_object("celery_ops.settings")
app.conf.update(
    # A volume is some 9 MB in the result store and of no use once the page has drawn it.
    result_expires=600,
    beat_schedule={
        "save-latest-flickr-image": {
            "task": "task_save_latest_flickr_image",
            "schedule": crontab(minute="*/15"),
            # After an outage one fetch is enough: ticks older than the next one are void.
            "options": {"expires": 14 * 60},
        },
    },
)
app.autodiscover_tasks()
