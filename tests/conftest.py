"""Every test finds the kit as Ansible does: as the collection celery_ops.kit, through the link in collections/."""

from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

# Once a process, and before anything of the collection is imported.
init_plugin_loader([str(Path(__file__).resolve().parents[1] / "collections")])
