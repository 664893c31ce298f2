from celery.schedules import crontab
from petct.celery import app


def test_tasks_have_the_names_others_call_them_by(db):
    app.loader.import_default_modules()

    assert {"loadArray", "task_save_latest_flickr_image", "celery_ops.canary", "celery_ops.tick"} <= set(app.tasks)


def test_nothing_is_ever_unpickled():
    assert set(app.conf.accept_content) == {"json", "ndarray"}
    assert app.conf.result_serializer == "ndarray"
    assert app.conf.task_serializer == "json"


def test_photos_are_fetched_every_quarter_of_an_hour():
    entry = app.conf.beat_schedule["save-latest-flickr-image"]

    assert entry["task"] == "task_save_latest_flickr_image"
    assert entry["schedule"] == crontab(minute="*/15")
    assert app.tasks[entry["task"]].ignore_result
    assert app.tasks[entry["task"]].store_errors_even_if_ignored
