"""What a build refuses, or says, when it has looked at the application."""

from __future__ import annotations

import os

import pytest
from ansible_collections.celery_ops.kit.plugins.module_utils import release_build
from support.release_host import APP, like

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for runuser"),
    pytest.mark.usefixtures("conf_d", "no_settings_of_another"),
]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import nowhere", True),
        ("raise OSError(28, 'No space left on device')", False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", False),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", False),
    ],
)
def test_an_import_that_fails_is_the_releases_fault_unless_the_host_is_to_blame(code, fault, built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{code}\n{APP}")
    host.packed = host.pack()
    assert host.fail().release_fault is fault
    assert host.status == ("failed" if fault else "building")


def test_an_import_may_take_as_long_as_a_worker_to_start(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"import time\ntime.sleep(4)\n{APP}")
    host.packed = host.pack()
    assert "did not end within 1 s" in str(error := host.fail(import_timeout=1)) and not error.release_fault
    assert "write: celery_worker_ready_timeout: 5" in str(error)
    assert host.build(import_timeout=60)["changed"]


def test_what_the_application_is_stands_in_its_release_and_is_said_once(built):
    answer = built.build(archive=False)
    report = answer["inspect"]
    assert report == built.releases.note(built.packed["id"])["inspect"]
    assert report["queues"] == ["celery"] and report["versions"]["celery"]
    assert "warnings" not in answer, "said when it was built"
    assert built.build(archive=False, check_mode=True)["inspect"] == report
    assert "task_acks_late is False" in next(release_build.unsafe(report))


def test_another_environment_is_inspected_before_anything_runs_with_it(built):
    other = built.environment.with_name("env-2")
    other.write_text("CELERY_RESULT_BACKEND=mongodb://there/\n")
    error = built.fail(archive=False, environment_file=str(other))
    assert "client can't be imported" in str(error) and "Write: celery[mongodb]" in str(error)
    assert not error.release_fault, "what was built already was good with the settings before"
    assert built.status in ("built", "good")
    other.write_text("CELERY_BROKER_URL=amqp://shop:secret@there//\n")
    answer = built.build(archive=False, environment_file=str(other))
    assert answer["inspect"]["broker"]["url"] == "amqp://shop:********@there:5672//"
    assert "app.conf.task_acks_late = True" in answer["warnings"][0]


def test_an_application_that_can_not_work_is_refused_with_the_line_to_write(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(APP + "app.conf.result_backend = 'mongodb://there/'\n")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "mongodb" in str(error) and "Write: celery[mongodb]" in str(error)
    assert "Nothing that runs was touched" in str(error)


@pytest.mark.parametrize("place", ["celery_ops.py", "celery_ops/__init__.py"])
def test_a_module_that_is_called_like_the_runtime_is_refused_by_name(built, tmp_path, place):
    host = like(built, tmp_path)
    (host.source / place).parent.mkdir(exist_ok=True)
    (host.source / place).write_text("RATE = 3\n")
    (host.source / "shop.py").write_text(f"from celery_ops import RATE\n{APP}")
    host.packed = host.pack()
    error = host.fail()
    assert f"{place} has the name of the kit's runtime" in str(error) and "Write: another name for it" in str(error)
    assert error.release_fault
    # A directory of another language's files hides nothing, and neither does a copy that is left out.
    (host.source / "celery_ops/playbooks").mkdir(parents=True)
    (host.source / "celery_ops/playbooks/site.yml").write_text("[]\n")
    (host.source / "shop.py").write_text(f"import celery_ops\n{APP}celery_ops.apply(app)\n")
    host.packed = host.pack(exclude=[f"**/{place}"])
    assert host.build()["inspect"]["settings"] == "celery_ops.apply"


def test_an_environment_variable_that_the_application_misses_is_named_with_where_to_write_it(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"import os\nos.environ['SHOP_KEY']\n{APP}")
    host.packed = host.pack()
    assert "needs the environment variable SHOP_KEY. Write: celery_app_environment: {SHOP_KEY: ...}" in str(host.fail())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("app.config_from_object('django.conf:settings', namespace='CELERY')", "DJANGO_SETTINGS_MODULE"),
        ("app.config_from_envvar('SHOP_CONFIG')", "SHOP_CONFIG"),
    ],
)
def test_so_is_one_by_which_celery_finds_the_settings(built, tmp_path, line, name):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{APP}{line}\n")
    host.packed = host.pack()
    assert f"variable {name}. Write: celery_app_environment: {{{name}: ...}}" in str(host.fail())


def test_an_application_that_ends_the_process_when_it_is_imported_is_refused_by_name(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text("import os\nos._exit(0)\n")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "shop (release" in str(error) and "os._exit" in str(error)


def test_what_the_inventory_runs_and_the_application_can_not_is_refused_built_or_not(built, tmp_path):
    host = like(built, tmp_path)
    own = "app.conf.update(worker_pool='gevent', beat_scheduler='sched:Mine')\n"
    (host.source / "shop.py").write_text(APP + own)
    host.packed = host.pack()
    for _ in ("not built", "built"):
        error = host.fail(pools=["prefork", "threads", "eventlet"], has_scheduler=True)
        assert "Write: celery_worker_programs: [{name: default, pool: gevent" in str(error)
        assert "Write: eventlet (into requirements.txt), or another pool" in str(error)
        assert "beat_scheduler has the scheduler sched:Mine, which can't be loaded (" in str(error)
        assert "celery_scheduler_enabled: false" in str(error)
        assert not error.release_fault, "another inventory can run it"
        assert host.build(pools=["threads"])["inspect"]["pool"] == "gevent"


def test_a_scheduler_or_options_that_celery_does_not_take_are_refused_by_variable_built_or_not(built):
    def lines(*words):
        return [{"command": "beat", "about": "celery_scheduler_options", "words": list(words)}]

    for archive in (True, False):
        error = built.fail(archive=archive, has_scheduler=True, command_lines=lines("-S", "sched:Mine"))
        assert "celery_scheduler_options has the scheduler sched:Mine, which can't be loaded" in str(error)
        assert "Write: package.module:Class of one, its package into requirements.txt" in str(error)
        error = built.fail(archive=archive, has_scheduler=True, command_lines=lines("--max-intervall", "5"))
        assert "celery beat does not take the options of celery_scheduler_options (No such option" in str(error)
        assert not error.release_fault
    assert built.status in ("built", "good")
    good = {"archive": False, "has_scheduler": True, "command_lines": lines("-S", "celery.beat:Scheduler")}
    assert built.build(**good)["inspect"]["scheduler"] == "celery.beat:Scheduler"
    assert built.build(**good)["changed"] is False


@pytest.mark.parametrize(
    ("known", "refused"), [([], []), (["a", "mail"], []), (["a", "b"], ["mail"])], ids=["makes any", "known", "unknown"]
)
def test_a_queue_that_the_application_does_not_make_is_refused(known, refused):
    options = {"pools": ["prefork"], "queues": ["a", "mail"], "has_scheduler": False, "verify_clients": False}
    found = list(release_build.unfit({"only_queues": known}, options))
    assert [one["write"] for one in found] == [
        f"Queue({name!r}) in task_queues, or another queue in celery_worker_programs" for name in refused
    ]


def test_a_deploy_without_the_files_that_a_new_version_names_is_refused_before_anything_changes(built, tmp_path):
    lines = [f"CELERY_OPS_TLS_{name}={tmp_path}/{name}.pem\n" for name in ("CA", "CLIENT")]
    (tmp_path / "CA.pem").touch()
    said = str(built.fail(environment_text="".join(lines)))
    assert said.startswith(f"There is no {tmp_path}/CLIENT.pem. ") and said.endswith("playbooks/site.yml")
    assert not built.environment.read_text()


@pytest.mark.parametrize("verify", [True, False])
def test_an_application_that_shows_no_certificate_is_refused_where_one_is_asked_for(verify):
    options = {"app": "shop", "pools": [], "queues": [], "has_scheduler": False, "verify_clients": verify}
    assert list(release_build.unfit({"shows_certificate": True}, options)) == []
    assert list(release_build.unfit({}, options)) == [], "what an earlier version built is named by the rollback"
    found = [one["write"] for one in release_build.unfit({"shows_certificate": False}, options)]
    assert len(found) == verify
    assert all("celery_ops.apply(app)" in one and '"certfile": "/etc/shop/client.pem"' in one for one in found)


def test_a_task_that_is_nowhere_and_a_setting_that_the_inventorys_takes_the_place_of_are_said_once(built, tmp_path):
    host = like(built, tmp_path)
    scheduled = "app.conf.beat_schedule = {'x': {'task': 'shop.nothing', 'schedule': 3}}\n"
    (host.source / "shop.py").write_text(f"{APP}app.conf.result_backend = 'rpc://'\n{scheduled}")
    host.environment.write_text("CELERY_RESULT_BACKEND=cache+memory://\n")
    host.packed = host.pack()
    told = "The application's result_backend is rpc://, and cache+memory:// is used in its place. "
    *_, scheduled, ignored = host.build()["warnings"]
    assert "beat_schedule['x'] sends the task shop.nothing, which this application does not have" in scheduled
    assert "Write: " in scheduled and told in ignored
    assert "warnings" not in host.build()


@pytest.mark.parametrize(("own", "by_default", "said"), [(16, True, True), (16, False, False), (2, True, False)])
def test_a_concurrency_of_its_own_that_no_program_has_is_said(own, by_default, said):
    [*told] = release_build.ignored({"concurrency": own}, {"default_concurrency": by_default})
    line = "worker_concurrency is 16, and 2 is used in its place. For the application's own, write: "
    assert [f"{line}celery_worker_programs: [{{name: default, concurrency: 16}}]" in one for one in told] == [
        True
    ] * said


@pytest.mark.parametrize(
    ("place", "write"),
    [
        ("src/prices/__init__.py", "`-e .` into requirements.txt, or celery_app_environment: {PYTHONPATH: src}"),
        ("backend/prices.py", "celery_app_directory: backend"),
    ],
)
def test_an_application_that_is_one_directory_below_is_found_and_said(built, tmp_path, place, write):
    host = like(built, tmp_path)
    (host.source / place).parent.mkdir(parents=True)
    (host.source / place).write_text(APP)
    host.packed = host.pack()
    error = host.fail(celery_module="prices.celery")
    assert "No module named 'prices'" in str(error) and f"Write: {write}" in str(error)


def test_a_module_that_no_worker_would_find_is_refused_in_the_build(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "shop.py").write_text(f"{APP}app.autodiscover_tasks(['mail'])\n")
    (host.source / "mail").mkdir()
    for name in ("__init__", "tasks"):
        (host.source / f"mail/{name}.py").write_text("")
    host.packed = host.pack()
    error = host.fail()
    assert error.release_fault and "No module named 'mail'" in str(error)
    assert "Write: celery_app_environment: {PYTHONPATH: .}, or `import mail` into shop" in str(error)
    # What it says to write is what makes it work.
    host.environment.write_text("PYTHONPATH=.\n")
    host.build()
    host.environment.write_text("")
    assert "shop.py is a file, not a module. Write: celery_app_module: shop" in str(host.fail(celery_module="shop.py"))
    (host.source / "shop.py").write_text(f"{APP}import mail\napp.autodiscover_tasks(['mail'])\n")
    host.packed = host.pack()
    host.build()


@pytest.mark.parametrize("requirements", ["pyproject.toml", "uv.lock"])
def test_a_project_in_src_that_nobody_installs_is_told_how(tmp_path, requirements):
    (tmp_path / "app/src/prices").mkdir(parents=True)
    said = release_build.where_it_is("prices", tmp_path, {"requirements": requirements})
    assert "Write: [build-system] into pyproject.toml, to have it installed, or celery_app_environment" in said


def test_another_module_that_is_missing_is_not_looked_for_where_the_application_is(built, tmp_path):
    host = like(built, tmp_path)
    (host.source / "src").mkdir()
    (host.source / "src/shop.py").write_text(APP + "import nowhere\n")
    (host.source / "shop.py").unlink()
    host.packed = host.pack()
    host.environment.write_text("PYTHONPATH=src\n")
    error = host.fail()
    assert "No module named 'nowhere'" in str(error) and "Write" not in str(error)
