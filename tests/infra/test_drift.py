"""A host that was edited by hand is corrected by the next run of site.yml: every file and directory of the roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support.control import ROOT, play
from support.host import APP, Host
from support.wait import wait_until

pytestmark = [pytest.mark.timeout(240), pytest.mark.only_on("trixie")]

UNITS = "/etc/systemd/system"
PATHS = {
    "/etc/rabbitmq/conf.d": "/etc/rabbitmq/conf.d",
    "{{ __rabbitmq_conf }}": "/etc/rabbitmq/conf.d/90-celery-ops.conf",
    "{{ __rabbitmq_environment }}": "/etc/rabbitmq/rabbitmq-env.conf",
    "{{ __rabbitmq_epmd_dropin | dirname }}": f"{UNITS}/epmd.socket.d",
    "{{ __rabbitmq_epmd_dropin }}": f"{UNITS}/epmd.socket.d/celery-ops.conf",
    "{{ __result_store_conf }}": "/etc/redis/celery-ops.conf",
    "/etc/redis/redis.conf": "/etc/redis/redis.conf",
    "{{ __supervisor_dropin | dirname }}": f"{UNITS}/supervisor.service.d",
    "{{ __supervisor_dropin }}": f"{UNITS}/supervisor.service.d/celery-ops.conf",
    "{{ __supervisor_conf }}": "/etc/supervisor/supervisord.conf",
    "{{ __celery_app_base }}": f"/srv/{APP}",
    "{{ __celery_app_releases }}": f"/srv/{APP}/releases",
    "{{ __celery_app_shared }}": f"/srv/{APP}/shared",
    "{{ __celery_app_etc }}": f"/etc/{APP}",
    "{{ __celery_app_log }}": f"/var/log/{APP}",
    "{{ __celery_app_lib }}": f"/var/lib/{APP}",
    "{{ __celery_app_metrics }}": f"/var/lib/{APP}/metrics",
    "{{ __celery_app_run }}": f"/run/{APP}",
    "{{ __celery_app_commands_dir }}/{{ celery_app_command }}": f"/usr/local/bin/{APP}",
    "{{ __celery_app_tmpfiles }}": f"/etc/tmpfiles.d/{APP}.conf",
    "{{ __celery_app_ctl }}": f"/usr/local/bin/{APP}ctl",
    "{{ __celery_app_sudoers }}": f"/etc/sudoers.d/celery-ops-{APP}",
}
"""Where the roles' steps are on this host."""
ELSEWHERE = {
    "{{ __rabbitmq_inetrc }}",
    "{{ __rabbitmq_internode }}",
    "{{ __rabbitmq_dropin | dirname }}",
    "{{ __rabbitmq_dropin }}",
    "{{ __result_store_replication }}",
    "{{ __result_store_instance_data }}",
    "{{ __result_store_instance_conf }}",
    "{{ __flower_conf }}",
    "{{ __flower_etc }}",
    "{{ __flower_etc }}/ca.pem",
    "{{ __flower_etc }}/client.pem",
    "{{ __flower_etc }}/settings.json",
    "{{ __flower_log }}",
    "{{ __flower_opt }}",
    "{{ __flower_opt }}/flower_program.py",
    "{{ __flower_opt }}/requirements.txt",
    "{{ __flower_opt }}/venv",
    "{{ __monitoring_rabbitmq_conf }}",
}
"""Steps of clusters, of a second instance, of Flower, and of the broker's metrics."""
OTHERS = ("/etc/redis/celery-ops.acl", f"/etc/{APP}/env")
"""Files that modules of their own write."""


def steps() -> Iterator[dict[str, Any]]:
    """Yield the steps of all roles, those in variables included."""
    for file in ROOT.glob("roles/*/vars/main.yml"):
        for name, value in yaml.safe_load(file.read_text()).items():
            yield from value if name.endswith("_steps") else ()
    for file in ROOT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(file.read_text()):
            for each in [task, *task.get("block", [])]:
                yield from each.get("celery_ops.kit.host_state", {}).get("steps", [])


def written(kind: str) -> set[str]:
    """Return the paths of the steps of a kind, as the roles write them."""
    return {step[kind] for step in steps() if kind in step}


def looks(host: Host, paths: list[str]) -> dict[str, str]:
    """Return owner, mode and a hash of each path's lines; in a package's file a line may come back at another place."""
    quoted = " ".join(paths)
    lines = host.output(
        f"for p in {quoted}; do echo $p $(stat -Lc '%U:%G %a' $p) $([ -d $p ] || sort $p | sha256sum); done"
    )
    return dict(line.split(" ", 1) for line in lines.splitlines())


def test_what_was_edited_by_hand_is_corrected(host):
    known = written("directory") | written("file") | written("edit")
    assert known == set(PATHS) | ELSEWHERE, "a step that this test does not know, or one that is gone"
    directories = [PATHS[each] for each in written("directory") & set(PATHS)]
    texts = [PATHS[each] for each in written("file") & set(PATHS)]
    of_packages = [PATHS[each] for each in written("edit")]
    paths = [*directories, *texts, *of_packages, *OTHERS]
    before = looks(host, paths)
    host.output(f"chmod 0777 {' '.join(directories)}")
    host.output(f"sed -i '$ s/.*/# edited/' {' '.join(texts)}")
    acl, environment = OTHERS
    host.output(f"sed -i '$ s/ on / off /' {acl} && echo '# edited' >> {environment}")
    host.output(f"chmod 0666 {' '.join([*texts, *OTHERS])}")
    host.output(f"sed -i 's/^chmod=0700/chmod=0777/; /^include.*celery-ops/d' {' '.join(of_packages)}")
    assert not set(before.items()) & set(looks(host, paths).items())

    again = play("site", host, options=["--skip-tags", "check"])
    assert again.rc == 0, again.text[-6000:]
    after = looks(host, paths)
    assert {path: after[path] for path in after if after[path] != before[path]} == {}
    wait_until(host.task_comes_back, 60, "a task's round trip")
