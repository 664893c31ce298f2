"""A path stands once: in module_utils/layout.py, in the one file that needs it, or in the role that writes it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from ansible_collections.celery_ops.kit.plugins.module_utils import layout
from ansible_collections.celery_ops.kit.plugins.module_utils.services import rabbitmq, rabbitmq_cluster, redis
from kit import ROOT, load, tracked_files

# Roles that know nothing of the layout have a path of their own; where modules know it, too, both are the same.
IN_ROLES = {
    "rabbitmq": {
        "__rabbitmq_conf": rabbitmq.CONFIGURATION,
        "__rabbitmq_environment": rabbitmq_cluster.ENVIRONMENT,
        "__rabbitmq_cookie": layout.ERLANG_COOKIE,
        "__rabbitmq_tls": layout.CERTIFICATES["broker"].parent,
    },
    "result_store": {
        "__result_store_conf": redis.CONFIGURATION,
        "__result_store_acl": redis.ACL_FILE,
        "__result_store_tls": layout.CERTIFICATES["result_store"].parent,
    },
    "supervisor": {"__supervisor_conf": layout.SUPERVISORD_CONF},
    "flower": {"__flower_conf": f"{layout.CONF_D}/{{{{ __flower_name }}}}.conf"},
}


def test_no_path_stands_in_two_python_files():
    found = defaultdict(set)
    for path in tracked_files():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("plugins", "runtime"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and re.fullmatch(r"/(etc|run|srv|usr|var)/\S+", str(node.value)):
                    found[node.value].add(str(path.relative_to(ROOT)))
    places = {"/var/lib", "/var/log"}  # of every application
    assert {path: files for path, files in found.items() if len(files) > 1 and path not in places} == {}
    assert len(found) > 20


def test_what_a_role_names_is_what_the_modules_name():
    for role, paths in IN_ROLES.items():
        values = load(ROOT / f"roles/{role}/vars/main.yml")
        assert {name: values[name] for name in paths} == {name: str(path) for name, path in paths.items()}


def test_the_role_of_the_application_writes_no_path_itself():
    texts = {path: path.read_text() for path in (ROOT / "roles/celery/tasks").glob("*.yml")}
    written = [
        f"{path.name}: {line.strip()}"
        for path, text in texts.items()
        for line in re.sub(r"#.*", "", text).splitlines()
        # Others' programs, by which a step tells whether it is for this host.
        if re.search(r"(?<![\w}])/(etc|run|srv|usr|var|dev)/", line)
        and not re.search(r"(needs:|validate:|- /usr/s?bin/)", line)
    ]
    assert written == []
    base = (ROOT / "roles/preflight/tasks/uninstall.yml").read_text()
    assert f"loop: [{layout.KIT_STATE}, {layout.KIT_RUN}]" in base
