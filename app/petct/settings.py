"""Django's settings, all from the environment; the table of variables is in the application's README.md.

A value that makes no sense raises ImproperlyConfigured, naming the variable, what it holds and the fix.
"""

import os
import secrets
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def _positive_integer(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ImproperlyConfigured(f"{name} is {text!r}; it must be a positive whole number, e.g. {name}={default}.")
    return int(text)


DEBUG = os.environ.get("PETCT_DEBUG") == "1"
# Empty is refused where it matters, in petct/wsgi.py: workers, beat and migrations need no key.
SECRET_KEY = os.environ.get("PETCT_SECRET_KEY") or (secrets.token_urlsafe(48) if DEBUG else "")
ALLOWED_HOSTS = [
    host.strip() for host in (os.environ.get("PETCT_ALLOWED_HOSTS") or "127.0.0.1,localhost").split(",") if host.strip()
]

PETCT_DATA_DIR = Path(os.environ.get("PETCT_DATA_DIR") or BASE_DIR / "data")
PETCT_FLICKR_FEED_URL = (
    os.environ.get("PETCT_FLICKR_FEED_URL")
    or "https://www.flickr.com/services/feeds/photos_public.gne?format=json&nojsoncallback=1"
)
PETCT_FLICKR_MAX_BYTES = _positive_integer("PETCT_FLICKR_MAX_BYTES", 10 * 1024 * 1024)

DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL") or f"sqlite:///{BASE_DIR / 'db.sqlite3'}", conn_max_age=60
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Web and workers share the file: readers must not block the writer, and writers wait their turn.
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = ["django.contrib.staticfiles", "petct", "viewer", "photos"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "petct.urls"
WSGI_APPLICATION = "petct.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

STATIC_URL = "static/"
# Served by the application itself, straight from the source: a release needs no collectstatic.
WHITENOISE_USE_FINDERS = True

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

# Errors of requests go to stderr, and so to the web program's log, with DEBUG on or off.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
}
