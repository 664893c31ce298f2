"""The WSGI application: `gunicorn petct.wsgi`."""

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

from petct.celery import app

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "petct.settings")
GIVE_UP_SOON = {"interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}

if not os.environ.get("PETCT_SECRET_KEY") and not settings.DEBUG:
    raise ImproperlyConfigured(
        "PETCT_SECRET_KEY is not set. The web server signs addresses with it; all web hosts need the same. "
        "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))' "
        "(or set PETCT_DEBUG=1 to try the application on your own machine)."
    )
# A page must not hang: it gives up at once on a broker or result store that is down, within some five seconds on one
# that is frozen or takes nothing, where a worker or beat would keep trying.
app.conf.update(
    broker_connection_timeout=2,
    broker_transport_options={
        **app.conf.broker_transport_options,
        "max_retries": 2,
        "read_timeout": 1,
        "write_timeout": 1,
        **GIVE_UP_SOON,
    },
    task_publish_retry_policy={"max_retries": 1, **GIVE_UP_SOON},
    result_backend_transport_options={"retry_policy": {"max_retries": 1, **GIVE_UP_SOON}},
    redis_socket_connect_timeout=2,
    redis_socket_timeout=2,
    redis_retry_on_timeout=False,
)
application = get_wsgi_application()
