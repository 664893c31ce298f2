"""Every other template of the roles: it renders from the defaults and says who manages the file."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(ROOT.glob("roles/*/templates/*.j2"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_it_renders_from_the_defaults(template, render):
    text = render(template)
    assert "Ansible managed" in text
    assert text.endswith("\n")
    for left_over in ("{{", "{%", "None", "Undefined"):
        assert left_over not in text


def test_systemd_leaves_supervisord_time_for_warm_stops(render):
    unit = configparser.ConfigParser(strict=False)  # an option may be there twice in a unit
    unit.optionxform = str
    unit.read_string(render(ROOT / "roles/supervisor/templates/dropin.conf.j2", celery_app_task_time_limit=7200))
    assert unit["Service"]["KillMode"] == "process"
    assert int(unit["Service"]["TimeoutStopSec"]) > 7200 + 30
