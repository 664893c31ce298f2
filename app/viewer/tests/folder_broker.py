"""A broker and a result store made of folders, so that a real worker needs no service.

`celery -A viewer.tests.folder_broker worker` takes the folder from PETCT_TEST_FOLDER.
"""

import os
from pathlib import Path

from celery import Celery
from petct.celery import app


def use_folder(app: Celery, folder: Path) -> None:
    """Let `app` exchange its messages and results through `folder`."""
    # The environment would win over the configuration.
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        os.environ.pop(name, None)
    for name in ("messages", "control", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    messages = str(folder / "messages")
    app.conf.update(
        broker_url="filesystem://",
        broker_transport_options={
            "data_folder_in": messages,
            "data_folder_out": messages,
            "control_folder": str(folder / "control"),
            "polling_interval": 0.05,
        },
        result_backend=f"file://{folder / 'results'}",
    )


if "PETCT_TEST_FOLDER" in os.environ:
    use_folder(app, Path(os.environ["PETCT_TEST_FOLDER"]))
