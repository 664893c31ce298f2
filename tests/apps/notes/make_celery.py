"""What `celery -A make_celery` loads: Celery can't call a factory by itself."""

from notes import create_app

celery_app = create_app().extensions["celery"]
