"""Action plugins load on a control node, where nothing but Ansible is there."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

from ansible_collections.celery_ops.kit.plugins.plugin_utils.action import Action

ROOT = Path(__file__).resolve().parents[3]


def test_every_action_plugin_loads_by_its_full_name():
    program = """
import sys
from ansible.plugins.loader import action_loader, init_plugin_loader
init_plugin_loader()
for name in sys.argv[1:]:
    assert action_loader.get(f"celery_ops.kit.{name}", class_only=True), name
"""
    names = sorted(path.stem for path in (ROOT / "plugins/action").glob("*.py"))
    assert names
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    command = [sys.executable, "-I", "-c", program, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_no_action_plugin_hides_what_its_base_calls():
    own = {"run", "run_module"}
    for path in (ROOT / "plugins/action").glob("*.py"):
        plugin = importlib.import_module(f"ansible_collections.celery_ops.kit.plugins.action.{path.stem}").ActionModule
        assert plugin is Action or not own & vars(plugin).keys(), path.name
