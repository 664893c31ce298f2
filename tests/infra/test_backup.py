"""A backup is restored on Debian 13 as well, whose rabbitmqctl hangs where definitions come by stdin."""

import pytest
from support.control import play


@pytest.mark.only_on("trixie")
@pytest.mark.timeout(300)
def test_a_backup_is_restored(host, tmp_path):
    file = tmp_path / "shop.sealed"
    done = play("backup", host, celery_app_backup_file=str(file))
    assert done.rc == 0, done.text
    given = {"celery_app_backup_file": str(file), "celery_app_restore_used": "yes"}
    restored = play("restore", host, options=["--skip-tags", "check"], **given)
    assert restored.rc == 0, restored.text
