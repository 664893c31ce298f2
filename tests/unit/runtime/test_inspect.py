"""What celery-ops-inspect reports of an application, each time in a process of its own, as the build asks it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from celery_ops.cli import inspect
from support.stage import RUNTIME, alive, clean_environment
from support.wait import wait_until

PLAIN = "from celery import Celery\napp = Celery('shop', broker='amqp://shop:s3cret@broker/shop')\n"


@pytest.fixture
def ask(tmp_path):
    def ask(code, returncode=0, name="shop", command_lines=(), **environment):
        (tmp_path / "shop.py").write_text(PLAIN + code)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "celery_ops.cli.inspect", "-A", name],
            capture_output=True, text=True, cwd=tmp_path, timeout=60,
            env=clean_environment(**{inspect.COMMAND_LINES: json.dumps(command_lines)}, **environment),
        )  # fmt: skip
        assert done.returncode == returncode, done.stderr
        assert "s3cret" not in done.stdout
        return json.loads(done.stdout) if returncode == 0 else done.stderr

    return ask


def test_a_plain_application_is_reported_whatever_it_prints_and_its_unsafe_settings_with_the_line_to_write(ask):
    report = ask("import os\nprint('hello')\nos.system('echo hello')\nimport threading\n"
                 "threading.Thread(target=threading.Event().wait).start()\n")  # fmt: skip
    assert report["settings"] == ""
    assert (report["default_queue"], report["queues"], report["routes"]) == ("celery", ["celery"], [])
    assert report["broker"] == {"url": "amqp://shop:********@broker:5672/shop", "transport": "amqp"}
    assert report["backend"] == {"url": "", "kind": ""}
    assert (report["scheduler"], report["schedule"]) == ("celery.beat:PersistentScheduler", [])
    assert all(report["versions"].values()) and report["python"].startswith("3.")
    assert [one["setting"] for one in report["unsafe"]] == [
        "task_acks_late", "task_reject_on_worker_lost", "broker_transport_options",
    ]  # fmt: skip
    (thread,) = report["doubtful"]
    assert "starts threads that are no daemons (Thread-1 (wait))" in thread["problem"]
    # What it says to write is what makes it safe.
    assert ask("\n".join(one["write"] for one in report["unsafe"]))["unsafe"] == []


def test_a_thread_that_does_not_keep_a_program_from_ending_is_not_named(ask):
    report = ask("import concurrent.futures, threading\n"
                 "concurrent.futures.ThreadPoolExecutor().submit(print)\n"
                 "threading.Thread(target=threading.Event().wait, daemon=True).start()\n")  # fmt: skip
    assert report["doubtful"] == []


def test_a_module_that_is_called_like_one_of_pythons_is_the_applications_own(ask, tmp_path):
    (tmp_path / "statistics.py").write_text("from shop import RATE\n")
    report = ask("import celery_ops\ncelery_ops.apply(app)\nRATE = 3\nimport statistics\nassert statistics.RATE\n")
    assert report["settings"] == "celery_ops.apply"


def test_a_router_of_the_applications_own_is_none_of_ours(ask):
    router = "class Router:\n    map = {'shop': ['photos', 'mails']}\n    def __call__(self, *_, **__): return None\n"
    report = ask(f"{router}app.conf.task_routes = (Router(), {{'shop.mail': 'mail'}})\n")
    assert report["routes"] == ["mail"]


def test_an_application_with_the_kits_settings_has_nothing_unsafe(ask):
    report = ask("app.config_from_object('celery_ops.settings')\n", CELERY_OPS_DEFAULT_QUEUE="shop")
    assert (report["settings"], report["queues"], report["unsafe"]) == ("celery_ops.settings", ["shop"], [])
    assert report["schedule"] == ["celery-ops-tick"]


@pytest.mark.parametrize(
    "replaced",
    [
        "@app.on_after_finalize.connect\ndef plan(sender, **_): sender.conf.beat_schedule = {'x': ENTRY}\n",
        "app.tasks\napp.conf.beat_schedule = {'x': ENTRY}\n",
    ],
    ids=["when it becomes final", "when it is final"],
)
def test_the_tick_stays_in_a_schedule_that_the_application_replaces_late(ask, tmp_path, replaced):
    applied = "import celery_ops\ncelery_ops.apply(app)\nENTRY = {'task': 'celery_ops.tick', 'schedule': 3}\n"
    assert ask(applied + replaced)["schedule"] == ["celery-ops-tick", "x"]
    code = "from celery_ops.probe import load_app; print(*sorted(load_app('shop').conf.beat_schedule))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True
    )
    assert done.stdout == "celery-ops-tick x\n", done.stderr


def test_what_an_application_keeps_beside_celery_ops_apply_is_named(ask):
    report = ask("import celery_ops\napp.conf.task_acks_late = False\ncelery_ops.apply(app)\n")
    assert (report["settings"], report["left"]) == ("celery_ops.apply", ["task_acks_late"])
    assert [one["setting"] for one in report["unsafe"]] == ["task_acks_late"]


def pretend(version, directory):
    """Make this version of Celery look installed, as far as its metadata tell."""
    (directory / f"celery-{version}.dist-info").mkdir()
    (directory / f"celery-{version}.dist-info/METADATA").write_text(f"Name: celery\nVersion: {version}\n")
    return {"PYTHONPATH": f"{directory}:{RUNTIME}"}


def test_quorum_queues_with_a_celery_that_can_not_consume_from_them_are_refused(ask, tmp_path):
    queues = (
        "from kombu import Queue\napp.conf.task_queues = [Queue('a', queue_arguments={'x-queue-type': 'quorum'})]\n"
    )
    assert ask(queues)["refused"] == []
    (refusal,) = ask(queues, **pretend("5.4.0", tmp_path))["refused"]
    assert refusal["problem"] == "Celery 5.4.0 can't consume from quorum queues (a)"


@pytest.mark.parametrize(("version", "lacks"), [("5.3.6", 4), ("5.5.3", 3), ("5.6.0", 0)])
def test_what_a_version_lacks_is_named_where_the_kits_settings_are_in_force(ask, tmp_path, version, lacks):
    report = ask("app.config_from_object('celery_ops.settings')\n", **pretend(version, tmp_path))
    assert len(report["unsafe"]) == lacks
    assert all(one["value"].startswith(version) for one in report["unsafe"])


@pytest.mark.parametrize(
    ("code", "name", "problem", "write"),
    [
        ("def create_app():\n    return None\ndel app", "shop", "Celery can't call the factory create_app",
         "`from shop import create_app`"),
        ("def create_app():\n    return None\ndel app", "shop:create_app()", "Celery can't call the factory create_app",
         "celery_app_module: make_celery"),
        ("def create_app():\n    return app\n", "shop:create_app", "finds no Celery application, but a function",
         "celery_app_module: shop:app"),
        ("worker, app = app, object()\n", "shop", "finds no Celery application, but a object",
         "celery_app_module: shop:worker"),
        ("del app\n", "shop", "celery -A shop finds no Celery application", "celery_app_module: <module>:<name"),
        ("", "shop:nothing", "celery -A shop:nothing finds no Celery application", "celery_app_module: shop:app"),
    ],
)  # fmt: skip
def test_a_module_without_an_application_where_celery_looks_is_refused_with_what_to_write(
    ask, code, name, problem, write
):
    (refusal,) = ask(code, name=name)["refused"]
    assert problem in refusal["problem"]
    assert write in refusal["write"]


@pytest.mark.parametrize("name", ["celery", "celery:app"])
def test_a_module_that_is_called_like_celery_is_refused_by_its_file(ask, tmp_path, name):
    (tmp_path / "celery.py").write_text(PLAIN)
    [refused] = ask("", name=name)["refused"]
    assert "celery.py has the name of Celery's own package" in refused["problem"]
    assert "celery_app_module: celery_app" in refused["write"]


@pytest.mark.parametrize("code", ["import nowhere\n", "[].nothing\n"])
def test_an_error_of_the_modules_own_is_shown_as_it_is(ask, code):
    assert code.split()[-1].strip("[].") in ask(code, returncode=1)


def test_workers_that_answer_nobody_are_refused_and_tasks_that_never_reach_a_queue_are_unsafe(ask):
    report = ask("app.conf.update(worker_enable_remote_control=False, task_always_eager=True, worker_direct=True)\n")
    (refusal,) = report["refused"]
    assert refusal["write"] == "app.conf.worker_enable_remote_control = True"
    for setting in ("task_always_eager", "worker_direct"):
        assert {"setting": setting, "value": True, "write": f"app.conf.{setting} = False"} in report["unsafe"]


def test_redbeat_needs_a_redis_and_no_lock_that_can_be_evicted(ask):
    redbeat = "app.conf.beat_scheduler = 'redbeat.RedBeatScheduler'\n"
    report = ask(redbeat)
    (refusal,) = report["refused"]
    assert "redbeat_redis_url" in refusal["write"]
    (lock,) = [one for one in report["unsafe"] if one["setting"] == "redbeat_lock_key"]
    report = ask(f"{redbeat}import os\n{refusal['write'].partition(' (or')[0]}\n{lock['write']}\n",
                 CELERY_RESULT_BACKEND="redis://there/0")  # fmt: skip
    assert report["refused"] == []
    assert "redbeat_lock_key" not in [one["setting"] for one in report["unsafe"]]


def line(command, *words):
    return {"about": command, "command": command, "words": list(words)}


SCHEDULER = """
import sys, types
sys.modules["shop_beat"] = module = types.ModuleType("shop_beat")
from celery.beat import Scheduler
module.Mine, module.broken = type("Mine", (Scheduler,), {}), None
"""


@pytest.mark.parametrize(
    ("options", "scheduler", "lacks"),
    [
        (["-S", "shop_beat:Mine"], "shop_beat:Mine", ""),
        (["--scheduler", "shop_beat.Mine"], "shop_beat.Mine", ""),
        (["--scheduler=shop_beet:Mine"], "shop_beet:Mine", "No module named 'shop_beet'"),
        (["-Sshop_beat:Min"], "shop_beat:Min", "module 'shop_beat' has no attribute 'Min'"),
        (["-S", "celery.beat"], "celery.beat", "it is a module, not a class"),
        (["-S", "broken_beat:Mine"], "broken_beat:Mine", "NameError: name 'nothing' is not defined"),
        (["-S", "mine"], "mine", "No module named 'mine'"),
        (["-S", "redbeat.RedBeatScheduler"], "redbeat.RedBeatScheduler", "No module named 'redbeat'"),
        (["--max-interval", "5"], "celery.beat:PersistentScheduler", ""),
    ],
)
def test_the_scheduler_that_beats_options_name_is_loaded_as_celery_does(ask, tmp_path, options, scheduler, lacks):
    (tmp_path / "broken_beat.py").write_text("nothing\n")
    path = f"{tmp_path}:{RUNTIME}"  # the directory of the application is not on beat's
    report = ask(SCHEDULER, command_lines=[line("beat", *options)], PYTHONPATH=path)
    assert (report["scheduler"], report["scheduler_lacks"], report["unusable_options"]) == (scheduler, lacks, [])
    named = "beat_scheduler" if scheduler.startswith("celery.beat:") else "celery_scheduler_options"
    assert report["scheduler_of"] == named
    # What is said of RedBeat is said wherever it is named.
    assert bool(report["refused"]) is ("redbeat" in scheduler)


def test_a_short_name_of_a_scheduler_is_that_of_its_package(ask, tmp_path):
    (tmp_path / "here_beat.py").write_text("class Mine: pass\n")
    (tmp_path / "here_beat-1.dist-info").mkdir()
    (tmp_path / "here_beat-1.dist-info/METADATA").write_text("Name: here_beat\nVersion: 1\n")
    points = tmp_path / "here_beat-1.dist-info/entry_points.txt"
    points.write_text("[celery.beat_schedulers]\nmine = here_beat:Mine\n")
    path = {"PYTHONPATH": f"{tmp_path}:{RUNTIME}"}
    assert ask("", command_lines=[line("beat", "-S", "mine")], **path)["scheduler_lacks"] == ""
    assert ask("app.conf.beat_scheduler = 'mine'\n", **path)["scheduler_lacks"] == ""


@pytest.mark.parametrize(
    ("command", "words", "problem"),
    [
        ("worker", ["--max-tasks-per-child", "20", "-l", "DEBUG", "-E", "-O", "fair"], ""),
        ("worker", ["worker_prefetch_multiplier=4"], ""),
        ("worker", ["--site", "north"], ""),
        ("worker", ["--max-task-per-child", "20"], "No such option"),
        ("worker", ["--max-tasks-per-child", "many"], "'many' is not a valid integer"),
        ("worker", ["--loader", "default"], "No such option"),
        ("worker", ["fast"], "fast is no option, nor setting=value"),
        ("worker", ["worker_nothing=4"], "there is no setting 'nothing'"),
        ("worker", ["--help"], "it prints a text and ends"),
        ("beat", ["--max-interval"], "requires an argument"),
        ("beat", ["-l", "LOUD"], "LOUD"),
    ],
)
def test_options_that_a_program_would_end_at_are_told_in_celerys_words(ask, command, words, problem):
    own = "from click import Option\napp.user_options['worker'].add(Option(('--site',)))\n"
    found = ask(own, command_lines=[line(command, *words)])["unusable_options"]
    assert [(one["about"], problem in one["problem"]) for one in found] == [(command, True)] * bool(problem), found


TASK = "\ndef x(): pass\n"
NAMED = {  # what settings and tasks name, and no worker or client can use: code, the problem, what to write
    "router": ("app.conf.task_routes = 'shop.routes.Router'", "task_routes has shop.routes.Router, which can't be "
               "loaded (No module named 'shop.routes'", "app.conf.task_routes = {"),
    "router in a list": ("app.conf.task_routes = [{'a': 'b'}, 'pdf']", "task_routes has pdf", "'package.module.fu"),
    "router that is none": ("app.conf.task_routes = 'celery.Task'", "it is the class Task, not a function", "router"),
    "number as router": ("app.conf.task_routes = [42]", "task_routes has 42", "router"),
    "routes that are no pairs": ("app.conf.task_routes = [('a', 'b', 'c')]", "no list of pairs", "{'queue': 'name'}"),
    "queue as route": ("from kombu import Queue\napp.conf.task_routes = {'shop.*': Queue('x')}",
                       "task_routes['shop.*'] is a Queue", "{'queue': 'x'}"),
    "route to no queue": ("from kombu import Queue\napp.conf.update(task_queues=[Queue('celery')], "
                          "task_routes={'a': 'b'}, task_create_missing_queues=False)", "names the queue b", ""),
    "consumer": ("app.conf.worker_consumer = 'shop.consumer:Mine'", "worker_consumer is shop.consumer:Mine, which "
                 "can't be loaded (No module named 'shop.consumer'; 'shop' is not a package)", "'package.m"),
    "autoscaler": ("app.conf.worker_autoscaler = 'celery.worker:Nope'", "worker_autoscaler is celery.worker:Nope, "
                   "which can't be loaded (module 'celery.worker' has no attribute 'Nope')", "worker_autoscaler ="),
    "timer": ("app.conf.worker_timer = 'nowhere:Timer'", "worker_timer is nowhere:Timer", "worker_timer = "),
    "agent": ("app.conf.worker_agent = 'cell.agents:Agent'", "No module named 'cell'", "or leave it out"),
    "failover": ("app.conf.broker_failover_strategy = 'random'", "broker_failover_strategy is random", "'shuffle'"),
    "event serializer": ("app.conf.event_serializer = 'nope'", "event_serializer is nope", "= 'json'"),
    "format": ("app.conf.worker_log_format = 'line: %(message)'", "worker_log_format is line: %(message), which "
               "can't be used", "'%(asctime)s %(levelname)s"),
    "format in braces": ("app.conf.worker_task_log_format = '{message}'", "worker_task_log_format is {message}",
                         "%(task_name)s"),
    "level": ("app.conf.worker_redirect_stdouts_level = 'LOUD'", "can't be used (KeyError: 'LOUD')", "'WARNING'"),
    "rate": ("app.conf.task_default_rate_limit = '10/day'", "task_default_rate_limit is 10/day", "'100/m'"),
    "number": ("app.conf.worker_max_tasks_per_child = '100'", "worker_max_tasks_per_child is '100', a text",
               "app.conf.worker_max_tasks_per_child = int('100')"),
    "rate of a task": (f"@app.task(rate_limit='10/day'){TASK}", "has rate_limit 10/day", "rate_limit='100/m'"),
    "serializer of a task": (f"@app.task(serializer='nope'){TASK}", "has serializer nope", "(serializer='json')"),
    "strategy": (f"@app.task(Strategy='nowhere:S'){TASK}", "has Strategy nowhere:S", "@app.task(Strategy='package"),
    "step": ("from celery import bootsteps\nclass Mine(bootsteps.Step):\n    requires = ('celery.worker.nowhere:X',)\n"
             "app.steps['worker'].add(Mine)", "app.steps['worker'] has Mine, and no worker can start with it",
             "requires = {"),
    "task class": ("app = Celery('shop', task_cls='shop.base:Base')", "task_cls='shop.base:Base') names what can't be "
                   "loaded", "Celery(..., task_cls='package.module:Class')"),
    "log class": ("app = Celery('shop', log='nowhere:Log')", "log='nowhere:Log') names", "Celery(..., log="),
    "annotation": ("app.conf.task_annotations = 'nowhere:A'\n@app.task\ndef x(): pass", "task_annotations is nowhere:A",
                   "app.conf.task_annotations = "),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_what_is_named_and_can_not_be_used_is_refused(ask, case):
    code, problem, write = NAMED[case]
    (refusal,) = ask(f"{code}\n")["refused"]
    assert problem in refusal["problem"] and write in refusal["write"]


def test_what_is_named_and_can_be_used_is_not_refused(ask):
    report = ask("""
from celery import bootsteps
from celery.app.log import Logging
from celery.worker.consumer import Consumer as Mine
class Step(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Pool"}
class Log(Logging): pass
class Router:
    def route_for_task(self, task, args=None, kwargs=None): return None
def route(name, *_, **__): return {"queue": "b"}
app = Celery("shop", log="shop:Log", task_cls="celery.app.task:Task")
app.steps["worker"].add(Step)
app.conf.update(
    worker_consumer="shop:Mine", worker_log_format="%(message)s", broker_failover_strategy="shuffle",
    task_routes=["shop:route", "shop.Router", {"a.*": "b"}, [("c", {"queue": "d"})], route, Router()],
    task_default_rate_limit="10/m", worker_redirect_stdouts_level="INFO", task_annotations={"*": {"rate_limit": "1/s"}},
    worker_max_tasks_per_child=100,
)
""")
    assert (report["refused"], report["doubtful"]) == ([], [])


def test_a_name_in_the_applications_directory_comes_with_the_path(ask, tmp_path):
    (tmp_path / "routing.py").write_text("def route(*_, **__): return None\n")
    routes = "app.conf.task_routes = 'routing.route'\n"
    (refusal,) = ask(routes)["refused"]
    assert "celery_app_environment: {PYTHONPATH: .}" in refusal["write"]
    assert ask(routes, PYTHONPATH=f".:{RUNTIME}")["refused"] == []


def test_a_format_that_nobody_uses_or_whose_fields_the_application_adds_is_not_refused(ask):
    broken = "app.conf.worker_log_format = '{message}'\nfrom celery import signals\n"
    assert ask(f"{broken}signals.setup_logging.connect(lambda **_: None, weak=False)\n")["refused"] == []
    (doubt,) = ask("app.conf.worker_task_log_format = '%(message)s %(task_name)'")["doubtful"]
    assert "can't write a line with worker_task_log_format, %(message)s %(task_name)" in doubt["problem"]
    field = "app.conf.worker_log_format = '%(request)s %(message)s'\nfrom celery import signals\n"
    (doubt,) = ask(field)["doubtful"]
    assert "worker_log_format, %(request)s %(message)s (Formatting field not found in record" in doubt["problem"]
    assert ask(f"{field}signals.after_setup_logger.connect(lambda **_: None, weak=False)\n")["doubtful"] == []


def test_a_celery_that_is_too_old_is_refused_by_name_and_version_before_the_application_is_imported(ask, tmp_path):
    report = ask("raise SystemExit('imported')\n", **pretend("5.2.7", tmp_path))
    assert report["versions"]["celery"] == "5.2.7"
    assert report["refused"] == [
        {
            "problem": "celery 5.2.7 is too old: the kit works with celery 5.3 and newer",
            "write": "celery>=5.3 (in celery_app_requirements)",
        }
    ]


def test_settings_that_were_replaced_since_are_not_in_force(ask):
    report = ask("app.config_from_object('celery_ops.settings')\napp.conf.task_acks_late\n"
                 "app.config_from_object('json')\n")  # fmt: skip
    assert report["settings"] == ""
    assert "task_acks_late" in [one["setting"] for one in report["unsafe"]]


def test_its_queues_routes_and_schedule_however_they_are_written(ask):
    report = ask("""
from kombu import Queue
app.conf.task_queues = [Queue("orders"), Queue("celery"), Queue("bills")]
app.conf.task_routes = ([("shop.pdf", "pdf"), ("shop.mail*", {"queue": "mail"})], lambda name, *_, **__: None)
@app.task(queue="slow")
def slow(): pass
@app.on_after_finalize.connect
def every(sender, **_): sender.add_periodic_task(5, slow.s(), name="five", queue="ticks")
""")
    assert report["queues"] == ["celery", "bills", "orders"]
    assert report["routes"] == ["mail", "pdf", "slow", "ticks"]
    assert report["schedule"] == ["five"]


def test_a_broadcast_is_called_by_its_alias_as_its_queue_has_another_name_in_each_process(ask):
    report = ask("""
from kombu import Queue
from kombu.common import Broadcast
app.conf.task_queues = [Queue("celery"), Broadcast("news")]
app.conf.task_routes = {"shop.tell": {"queue": "news"}, "shop.shout": {"queue": app.conf.task_queues[1]}}
""")
    assert (report["queues"], report["routes"]) == (["celery", "news"], ["news"])


def test_what_else_is_in_the_transport_options_is_not_shown_and_stays(ask):
    options = "app.conf.broker_transport_options = {'login': 's3cret', 'confirm_publish': False}\n"
    (found,) = [one for one in ask(options)["unsafe"] if one["setting"] == "broker_transport_options"]
    assert found["value"] == {"confirm_publish": False}
    kept = f"{options}{found['write']}\napp.conf.task_default_queue = app.conf.broker_transport_options['login'][2:]\n"
    report = ask(kept)
    assert report["default_queue"] == "cret"
    assert "broker_transport_options" not in [one["setting"] for one in report["unsafe"]]


@pytest.mark.parametrize(
    ("url", "code", "shows"),
    [
        ("amqp://a:b@127.0.0.1/v", "", True),
        ("amqps://a:b@hub/v", "", False),
        ("amqps://a:b@hub/v", "app.conf.broker_use_ssl = {'server_hostname': 'hub'}\n", False),
        ("amqps://a:b@hub/v", "app.conf.broker_use_ssl = {'certfile': '/etc/demo/client.pem'}\n", True),
        ("amqps://a:b@hub/v", "app.config_from_object('celery_ops.settings')\n", True),
    ],
)
def test_whether_the_broker_gets_a_certificate(ask, url, code, shows):
    asked = {"CELERY_BROKER_URL": url, "CELERY_OPS_TLS_CLIENT": "/etc/demo/client.pem"}
    assert ask(code, **asked)["shows_certificate"] is shows


def test_unsafe_content_is_named(ask):
    report = ask("app.conf.accept_content = ['json', 'pickle']\n")
    assert {
        "setting": "accept_content",
        "value": ["json", "pickle"],
        "write": "app.conf.accept_content = ['json']",
    } in (report["unsafe"])


@pytest.mark.parametrize(
    ("code", "what", "write"),
    [
        ("app.conf.result_backend = 'mongodb://there/'", "result backend is mongodb", "celery[mongodb]"),
        ("app.conf.result_backend = 'db+postgresql://u:s3cret@h/d'", "result backend is db", "celery[sqlalchemy]"),
        ("app.conf.result_backend = 'django-db'", "result backend is django-db", "django-celery-results"),
        (
            "import sys\nsys.modules['redis'] = None\napp.conf.result_backend = 'redis://there/1'",
            "result backend is redis",
            "celery[redis]",
        ),
        ("app.conf.broker_url = 'sqs://'", "broker is sqs", "celery[sqs]"),
    ],
)
def test_a_client_that_the_virtualenv_lacks_is_refused_with_the_requirement_to_add(ask, code, what, write):
    (refusal,) = ask(code + "\n")["refused"]
    assert f"the application's {what}, and its client can't be imported" in refusal["problem"]
    assert refusal["write"] == f"{write} (in celery_app_requirements)"


def test_without_the_kits_settings_a_store_of_several_hosts_is_refused(ask):
    code, kits = "app.conf.result_backend = 'sentinel://shop:s3cret@10.0.0.5:26379/1'\n", {"CELERY_OPS_SENTINEL": "x"}
    (refusal,) = ask(code, **kits)["refused"]
    assert "does not find the primary" in refusal["problem"]
    assert refusal["write"].startswith("celery_ops.apply(app)")
    assert ask(f"{code}import celery_ops\ncelery_ops.apply(app)\n", **kits)["refused"] == []
    assert ask(code)["refused"] == []


@pytest.mark.parametrize(
    ("kind", "missing", "requirement"),
    [
        ("db", "sqlalchemy", "celery[sqlalchemy]"),
        ("db", "psycopg2", "psycopg2-binary"),
        ("db", "pymysql", "pymysql"),
        ("redis", "redis", "celery[redis]"),
        ("mine", "mine", "the package that brings mine"),
    ],
)
def test_a_databases_driver_is_asked_for_by_its_own_name(kind, missing, requirement):
    assert (
        inspect.requirement_of(kind, ModuleNotFoundError(f"No module named {missing!r}", name=missing)) == requirement
    )


@pytest.mark.parametrize("code", ["app.conf.result_backend = 'rpc://'", "app.conf.result_backend = 'redis://h/1'"])
def test_a_client_that_is_there_is_not_asked_for(ask, code):
    assert ask(code + "\n")["refused"] == []


def test_an_application_that_can_not_be_imported_shows_its_own_traceback(ask):
    assert "ModuleNotFoundError: No module named 'nowhere'" in ask("import nowhere\n", returncode=1)


STARTS = """
import os, subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '600'])"])
open("child.pid", "w").write(str(child.pid))
threading.Thread(target=threading.Event().wait).start()
"""


@pytest.mark.parametrize(("fails", "returncode"), [("", 0), ("os.environ['SHOP_KEY']\n", 1)])
def test_processes_and_threads_that_the_import_starts_delay_and_outlive_nothing(ask, tmp_path, fails, returncode):
    said = ask(STARTS + fails, returncode)
    assert said["refused"] == [] if returncode == 0 else "KeyError: 'SHOP_KEY'" in said
    child = int((tmp_path / "child.pid").read_text())
    wait_until(lambda: not alive(child), 10, "the end of what the import has started")


@pytest.mark.parametrize("code", ["", "app.conf.broker_use_ssl = {'ca_certs': '/ca.pem'}\n",
                                  "app.conf.broker_use_ssl = {'server_hostname': None, 'cert_reqs': 0}\n"])  # fmt: skip
def test_a_broker_over_tls_that_others_can_pose_as_is_unsafe_until_what_it_says_is_written(ask, code):
    broker = {"CELERY_BROKER_URL": "amqps://shop:s3cret@broker.example:5671/shop"}
    (found,) = [one for one in ask(code, **broker)["unsafe"] if one["setting"] == "broker_use_ssl"]
    keeps = f"{code}{found['write']}\nassert not 'ca' in {code!r} or app.conf.broker_use_ssl['ca_certs']\n"
    for safe in (keeps, f"{code}import celery_ops\ncelery_ops.apply(app)\n" if not code else keeps):
        assert "broker_use_ssl" not in [one["setting"] for one in ask(safe, **broker)["unsafe"]]


def test_a_broker_without_tls_is_not_asked_for_its_certificate(ask):
    assert "broker_use_ssl" not in [one["setting"] for one in ask("")["unsafe"]]


def test_a_redis_over_tls_is_refused_while_nothing_says_whether_to_verify_it(ask):
    url = "rediss://shop:s3cret@cache:6380/1"
    (refusal,) = ask("", CELERY_RESULT_BACKEND=url)["refused"]
    assert "ssl_cert_reqs" in refusal["problem"] and "?ssl_cert_reqs=required" in refusal["write"]
    assert ask("", CELERY_RESULT_BACKEND=f"{url}?ssl_cert_reqs=required")["refused"] == []
    own = "import ssl\napp.conf.redis_backend_use_ssl = {'ssl_cert_reqs': ssl.CERT_REQUIRED}\n"
    assert ask(own, CELERY_RESULT_BACKEND=url)["refused"] == []


@pytest.mark.parametrize("setting", ["broker_read_url", "broker_write_url"])
def test_a_setting_that_leads_to_another_broker_is_refused(ask, setting):
    ours = {"CELERY_BROKER_URL": "amqp://shop:s3cret@ours/shop"}
    assert ask("app.conf.broker_url = 'amqp://shop:s3cret@other/shop'\n", **ours)["refused"] == [], "ours beats it"
    (refusal,) = ask(f"app.conf.{setting} = 'amqp://shop:s3cret@other/shop'\n", **ours)["refused"]
    assert f"the application's {setting} is amqp://shop:********@other/shop, and the rest of" in refusal["problem"]
    assert refusal["write"].startswith(f"app.conf.{setting} = None")
    assert ask(f"app.conf.{setting} = None\n", **ours)["refused"] == []


@pytest.mark.parametrize("code", ["import sys\nsys.exit(0)\n", "raise SystemExit('usage')\n"])
def test_a_module_that_ends_the_process_is_refused_with_the_line(ask, code):
    [refused] = ask(code)["refused"]
    assert "ends the process when it is imported" in refused["problem"]
    assert f"shop.py:{3 if 'raise' in code else 4}" in refused["problem"]
    assert "if __name__ ==" in refused["write"]


@pytest.mark.parametrize(
    ("code", "problem", "write"),
    [
        ("app.conf.task_compression = 'nope'", "task_compression is nope", "app.conf.task_compression = 'gzip'"),
        ("app.conf.result_compression = 'nope'", "result_compression is nope", "the package that brings it"),
        ("app.conf.task_compression = 'gzip'", "", ""),
        (
            "app.conf.worker_state_db = 'state/of-worker'",
            "worker_state_db is state/of-worker",
            "worker_state_db = None",
        ),
        ("app.conf.worker_state_db = 'of-worker'", "", ""),
        (
            "app.conf.result_backend = 'file://results'",
            "can't write there: a release is",
            "celery_app_shared: [results]",
        ),
        ("app.conf.result_backend = 'file:///no/where'", "is file:///no/where, and", "a path in /var/lib/<app>"),
        ("app.conf.result_backend = 'file://.'", "", ""),
    ],
)
def test_what_a_worker_can_not_load_or_write_is_refused(ask, code, problem, write):
    refused = ask(f"{code}\n")["refused"]
    assert [(problem in one["problem"], write in one["write"]) for one in refused] == [(True, True)] * bool(problem)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("db+sqlite:///results.sqlite", "results.sqlite"),
        ("db+sqlite+pysqlite:////var/lib/shop/results.sqlite?timeout=9", "/var/lib/shop/results.sqlite"),
        ("file://localhost/var/lib/shop", "/var/lib/shop"),
        *((url, None) for url in ("db+sqlite://", "db+sqlite:///:memory:", "db+postgresql://u@h/d", "redis://h", "")),
    ],
)
def test_where_a_backend_keeps_results_in_files(url, path):
    assert inspect.path_of_results(url) == (Path(path) if path else None)


def test_failed_tasks_can_be_kept_with_the_kits_settings_only(ask):
    keep = {"CELERY_OPS_KEEP_FAILED": "1"}
    [refused] = ask("", **keep)["refused"]
    assert "celery_app_keep_failed is set, and the application acknowledges tasks that fail" in refused["problem"]
    assert refused["write"].startswith("celery_ops.apply(app)")
    assert ask("import celery_ops\ncelery_ops.apply(app)\n", **keep)["refused"] == []


def of_serializers(report):
    return [one for one in report["refused"] if "serializer" in one["problem"]]


@pytest.mark.parametrize(
    ("code", "problem", "write"),
    [
        (
            "app.conf.task_serializer = 'pickle'",
            "task_serializer is pickle, and accept_content is ['json']: workers refuse each task",
            "app.conf.task_serializer = 'json', or app.conf.accept_content = ['json', 'pickle']",
        ),
        (
            "import celery_ops; celery_ops.apply(app); app.conf.task_serializer = 'yaml'",
            "task_serializer is yaml, and accept_content is ['json']",
            "app.conf.accept_content = ['json', 'yaml']",
        ),
        (
            "app.conf.update(result_serializer='pickle', result_backend='redis://r/1')",
            "result_serializer is pickle, and accept_content is ['json']: nobody can read a result",
            "app.conf.result_accept_content = ['json', 'pickle']",
        ),
        ("app.conf.update(task_serializer='nope')", "task_serializer is nope", "the package that brings it"),
        ("app.conf.update(accept_content='json')", "a text in place of a list: write ['json']", "'json'"),
        ("app.conf.update(accept_content=['json', 'nope'])", "accept_content is ['json', 'nope']", "'json'"),
    ],
)
def test_messages_and_results_that_nobody_takes_are_refused(ask, code, problem, write):
    [refused] = of_serializers(ask(code + "\n"))
    assert problem in refused["problem"] and write in refused["write"]


@pytest.mark.parametrize(
    "code",
    [
        "import celery_ops; celery_ops.apply(app)",
        "app.config_from_object('celery_ops.settings')",
        "app.conf.update(task_serializer='yaml', accept_content=['application/x-yaml'])",
        "app.conf.update(result_serializer='pickle')",
        "app.conf.update(result_serializer='pickle', result_accept_content=['pickle'], result_backend='redis://r/1')",
    ],
)
def test_messages_that_are_taken_are_not_refused(ask, code):
    assert of_serializers(ask(code + "\n")) == []


ENTRY = "@app.task(name='x')\ndef x(): pass\napp.conf.beat_schedule = {'x': {'task': 'x', 'schedule': 3,"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("app.conf.timezone = 'Europe/Nowhere'", "timezone is Europe/Nowhere"),
        ("app.conf.beat_schedule = [{'task': 'x', 'schedule': 30, 'args': ()}]", "beat_schedule is a list"),
        (
            "import celery_ops; app.conf.beat_schedule = [{'task': 'x'}]; celery_ops.apply(app)",
            "beat_schedule is a list",
        ),
        ("app.conf.beat_schedule = {'x': {'schedule': 30}}", "beat_schedule['x'] has no task"),
        ("app.conf.beat_schedule = {'x': {'task': 'x', 'schedule': 'daily'}}", "has the schedule 'daily', which is no"),
        ("app.conf.beat_schedule = {'x': {'task': 'x', 'schedule': lambda: 30}}", "has the schedule <function"),
        ("app.conf.beat_schedule = {'x': ['x', 30]}", "beat_schedule['x'] is a list, and has to be a dict"),
        (
            "app.conf.beat_schedule = {'x': {'task': len, 'schedule': 3}}",
            "has a builtin_function_or_method as its task",
        ),
        (f"{ENTRY} 'args': ('s3cret')}}}}", "has a str as its args, and has to have a list"),
        (f"{ENTRY} 'args': 5}}}}", "has a int as its args"),
        (f"{ENTRY} 'kwargs': ['s3cret']}}}}", "has a list as its kwargs, and has to have a dict"),
        (f"{ENTRY} 'options': ['s3cret']}}}}", "has a list as its options, and has to have a dict"),
        (f"{ENTRY} 'queue': 's3cret'}}}}", "has the key queue, which beat does not know"),
        (f"{ENTRY} 'args': [lambda: 3]}}}}", "can't be kept in beat's file, because of its args"),
    ],
)
def test_what_no_scheduler_can_work_with_is_refused(ask, code, problem):
    [refused] = ask(code + "\n")["refused"]
    assert problem in refused["problem"] and refused["write"]


def test_schedules_of_every_kind_are_not_refused(ask):
    report = ask(
        "from datetime import timedelta\nfrom celery.schedules import crontab, schedule\n"
        "class Own(schedule):\n    pass\n"
        "kinds = [30, 0.5, timedelta(seconds=3), crontab(hour=2), Own(5)]\n"
        "app.conf.timezone = 'America/New_York'\n"
        "app.conf.beat_schedule = {str(n): {'task': 't', 'schedule': each} for n, each in enumerate(kinds)}\n"
    )
    assert report["refused"] == [] and len(report["schedule"]) == 5


def test_entries_of_a_scheduler_of_its_own_may_have_other_keys_and_a_task_that_is_elsewhere_is_named(ask):
    own = (
        "from celery.beat import Scheduler, ScheduleEntry\n"
        "class Mine(Scheduler):\n    Entry = type('Entry', (ScheduleEntry,), {})\n"
        "app.conf.beat_scheduler = 'shop:Mine'\n"
        "@app.task\ndef daily(): pass\n"
        "app.conf.beat_schedule = {'x': {'task': 'shop.dayly', 'schedule': 3, 'enabled': True, 'args': [len]}}\n"
    )
    report = ask(own)
    assert report["refused"] == []
    (doubt,) = report["doubtful"]
    assert "beat_schedule['x'] sends the task shop.dayly, which this application does not have" in doubt["problem"]
    assert doubt["write"] == "'task': 'shop.daily'"


def test_queues_that_can_be_read_once_only_are_still_there_for_celery(ask):
    report = ask("from kombu import Queue\napp.conf.task_queues = map(Queue, ['a', 'b'])\n")
    assert (report["queues"], report["refused"]) == (["a", "b"], [])


def test_names_in_place_of_queues_are_refused(ask):
    [refused] = ask("app.conf.task_queues = ['a', 'b']\n")["refused"]
    assert "task_queues has 'a', 'b'" in refused["problem"]
    assert "[Queue('a'), Queue('b')]" in refused["write"]


def test_the_only_queues_are_reported_where_a_worker_makes_no_others(ask):
    declared = "from kombu import Queue\napp.conf.update(task_queues=[Queue('a'), Queue('b')], "
    assert ask(declared + "task_create_missing_queues=False)\n")["only_queues"] == ["a", "b"]
    assert ask(declared + "task_default_queue='a')\n")["only_queues"] == []
    declared = f"from kombu.common import Broadcast\n{declared}"
    routes = "task_routes={'a': 'a', 'b': {'queue': Queue('c')}, 'd': 'news'}, task_create_missing_queues=False)\n"
    (refusal,) = ask(declared + routes)["refused"]
    assert refusal["write"].startswith("Queue('news') in task_queues")
    assert ask(declared.replace("Queue('b')", "Broadcast('news')") + routes)["refused"] == []


def test_pool_and_scheduler_of_the_settings_are_reported(ask):
    assert ask("")["pool"] in ("", "prefork") and ask("")["scheduler_lacks"] == ""
    report = ask("app.conf.update(worker_pool='gevent', beat_scheduler='sched:Mine')\n")
    assert (report["pool"], report["refused"]) == ("gevent", [])
    assert "No module named 'sched'" in report["scheduler_lacks"] or "Mine" in report["scheduler_lacks"]


@pytest.mark.parametrize(
    ("own", "used", "said"),
    [
        ("db+sqlite://u:s3cret@x/y.db", "redis://r/1", True),
        ("redis://localhost/0", "rediss://r/1?ssl_cert_reqs=required", False),
        ("rpc://", "disabled", False),
        ("rpc://", "", False),
    ],
)
def test_a_result_backend_of_its_own_that_is_not_used_is_named(ask, own, used, said):
    ignored = ask(f"app.conf.result_backend = {own!r}\n", **({"CELERY_RESULT_BACKEND": used} if used else {}))[
        "ignored"
    ]
    assert [one["write"] for one in ignored] == ["celery_app_result_backend: app"] * said


def test_the_applications_own_result_backend_is_offered_where_the_client_of_the_other_is_missing(ask):
    [refused] = ask("app.conf.result_backend = 'rpc://'\n", CELERY_RESULT_BACKEND="mongodb://there/")["refused"]
    assert refused["write"].startswith("celery_app_result_backend: app (the application's own is rpc://), or celery[mo")


def test_a_password_that_is_not_encoded_is_not_shown_either(ask):
    ask("app.conf.result_backend = 'redis://u:p@s3cret/x@r/1'\n")
