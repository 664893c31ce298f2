"""Action plugins load on a control node, where nothing but Ansible is there: module_utils are packed for hosts only."""

import subprocess
import sys
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"


def test_every_action_plugin_loads_by_itself():
    program = "import runpy, sys; [runpy.run_path(path) for path in sys.argv[1:]]"
    paths = sorted(map(str, (PLUGINS / "action").glob("*.py")))
    assert paths
    done = subprocess.run([sys.executable, "-I", "-c", program, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
