import json

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from viewer import draw3d
from viewer.models import Record
from viewer.phantom import SHAPE, phantom


@pytest.fixture(scope="module")
def array():
    return phantom()


@pytest.fixture(autouse=True)
def make_it_once(array, monkeypatch):
    """Making the volume takes a second or two; the command itself is under test here."""
    monkeypatch.setattr("viewer.management.commands.make_demo.phantom", lambda: array)


def run(capsys):
    call_command("make_demo")
    return json.loads(capsys.readouterr().out)


def test_makes_a_volume_worth_looking_at_once(db, capsys, data_directory):
    assert run(capsys)["state"] == "created"
    stamp = (data_directory / "demo.mpv").stat().st_mtime_ns

    assert run(capsys)["state"] == "unchanged"
    assert (data_directory / "demo.mpv").stat().st_mtime_ns == stamp
    assert [path.name for path in data_directory.iterdir()] == ["demo.mpv"]

    record = Record.objects.get(userID="demo")
    record.full_clean()
    array = draw3d.loadArray(record.filepath, record.shape, record.dtype)
    assert array.shape == SHAPE == (110, 110, 187)
    assert array.dtype == np.dtype("<f4")
    assert np.isfinite(array).all()
    assert array.min() >= 0
    assert 0.1 < (array > 0.1).mean() < 0.6


def test_repairs_a_damaged_file_and_a_changed_record(db, capsys, data_directory):
    run(capsys)
    (data_directory / "demo.mpv").write_bytes(b"short")
    Record.objects.update(shape=[1, 2, 3])

    assert run(capsys)["state"] == "created"
    assert (data_directory / "demo.mpv").stat().st_size == 110 * 110 * 187 * 4
    assert Record.objects.get(userID="demo").shape == list(SHAPE)


def test_says_which_directory_it_cannot_write(db, settings, data_directory):
    (data_directory / "file").write_text("in the way")
    settings.PETCT_DATA_DIR = data_directory / "file"

    with pytest.raises(CommandError, match="PETCT_DATA_DIR"):
        call_command("make_demo")
    assert not Record.objects.exists()
