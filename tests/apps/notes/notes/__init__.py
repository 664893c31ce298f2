"""Notes: an application factory, as Flask's documentation has it, and Celery made by it."""

from celery import Celery, Task
from flask import Flask


def create_app() -> Flask:
    """Return a new application."""
    app = Flask(__name__)
    app.config["CELERY"] = {"task_default_queue": "notes", "task_ignore_result": False}
    app.config.from_prefixed_env()
    make_celery(app)

    from notes import pages

    app.register_blueprint(pages.blueprint)
    return app


def make_celery(app: Flask) -> Celery:
    """Return Celery for an application; each task runs in its context."""

    class ContextTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=ContextTask)
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    app.extensions["celery"] = celery
    return celery
