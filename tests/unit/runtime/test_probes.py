"""`ready` and `check` where they must say no; what they say yes to needs a broker and is tested with one."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from celery_ops.cli.ready import Node
from celery_ops.errors import RetryLater
from kombu import Queue
from kombu.common import Broadcast
from support.stage import alive, clean_environment
from support.wait import wait_until

READY = ["celery_ops.cli.ready", "--node", "demo@host", "--queues", "a,b", "--canary-file", "/run/demo/demo.canary"]
CHECK = ["celery_ops.cli.check"]
TIMEOUT = 8  # seconds; a busy machine takes some of them to import Celery, before it asks
both = pytest.mark.parametrize(("probe", "key"), [(READY, "ready"), (CHECK, "passed")], ids=["ready", "check"])


@pytest.fixture
def start(tmp_path):
    (tmp_path / "demo.py").write_text(
        "import asyncio, os, signal\n"
        "from celery import Celery\n"
        "print('an application that prints when it is imported')\n"
        "os.system('echo and so does a command of it')\n"
        # What only a main thread can do.
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "asyncio.get_event_loop_policy().get_event_loop()\n"
        # What gevent's monkey.patch_all asks for.
        "import threading\nassert threading.enumerate() == [threading.main_thread()]\n"
        "app = Celery('demo')\n"
        "app.config_from_object('celery_ops.settings')\n"
        "print('imported')\n"
    )
    (tmp_path / "broken.py").write_text("def oops(:\n")
    (tmp_path / "ending.py").write_text("raise SystemExit(0)\n")

    def start(probe, app, broker="amqp://demo:secret@127.0.0.1:1/demo", timeout=TIMEOUT):
        return subprocess.Popen(
            [sys.executable, "-m", *probe, "-A", app, "--timeout", str(timeout)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=clean_environment(CELERY_BROKER_URL=broker, CELERY_RESULT_BACKEND="redis://127.0.0.1:1/0"),
        )

    return start


@pytest.fixture
def ask(start):
    def ask(*arguments, **options):
        process = start(*arguments, **options)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 1, stderr
        assert "Traceback" not in stderr
        return json.loads(stdout)  # one line, whatever the application prints

    return ask


def test_a_result_backend_in_djangos_database_can_be_used(tmp_path):
    (tmp_path / "site_settings.py").write_text("INSTALLED_APPS = ['django.contrib.contenttypes']\n")
    (tmp_path / "kept.py").write_text(
        "from celery.backends.base import KeyValueStoreBackend\n"
        "from django.contrib.contenttypes.models import ContentType\n"
        "class Backend(KeyValueStoreBackend): pass\n"
    )
    (tmp_path / "blog.py").write_text(
        "import os\nfrom celery import Celery\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'site_settings'\n"
        "app = Celery('blog', backend='kept:Backend')\n"
    )
    code = "from celery_ops.probe import load_app; print(type(load_app('blog', results=True).backend))"
    environment = clean_environment(CELERY_BROKER_URL="amqp://127.0.0.1:1/")
    environment.pop("CELERY_RESULT_BACKEND", None)
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.stdout == "<class 'kept.Backend'>\n", said.stderr


@both
@pytest.mark.parametrize(
    ("app", "said"), [("nothing", "No module named 'nothing'"), ("broken", "SyntaxError: invalid syntax")]
)
def test_app_that_cannot_be_imported(ask, probe, key, app, said):
    answer = ask(probe, app)
    assert answer[key] is False
    assert answer["reason"].startswith(f"-A {app} can't be imported from ")
    assert said in answer["reason"]


@both
def test_an_application_that_ends_the_process_is_no_answer(ask, probe, key):
    answer = ask(probe, "ending")
    assert (answer[key], answer["reason"]) == (False, "SystemExit: 0")


@both
@pytest.mark.parametrize(
    ("broker", "said"),
    [
        ("amqp://demo:secret@127.0.0.1:1/demo", "Connection refused"),
        ("amqp://demo:secret@no.such.host.invalid:1/demo", "name resolution|not known"),
        ("nonsense://demo:secret@127.0.0.1:1/demo", "No such transport"),
        (
            "amqp://demo:secret@127.0.0.1:1/demo;amqp://demo:secret@127.0.0.1:2/demo",
            "broker amqp://demo:**@127.0.0.1:1/demo, amqp://demo:**@127.0.0.1:2/demo can't be reached",
        ),
    ],
    ids=["refused", "unknown-host", "unknown-transport", "several"],
)
def test_broker_out_of_reach(ask, probe, key, broker, said):
    answer = ask(probe, "demo", broker=broker)
    assert answer["seconds"] <= TIMEOUT
    assert answer[key] is False
    assert any(words in answer["reason"] for words in said.split("|")), answer["reason"]
    assert "secret" not in answer["reason"]


@both
def test_broker_that_accepts_and_says_nothing(ask, probe, key):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        answer = ask(probe, "demo", broker=f"amqp://demo:secret@127.0.0.1:{silent.getsockname()[1]}/demo")
    assert answer["seconds"] <= TIMEOUT
    assert answer[key] is False
    assert "can't be reached" in answer["reason"]


def test_what_an_application_starts_when_it_is_imported_ends_with_the_answer(ask, tmp_path):
    (tmp_path / "starting.py").write_text(
        "import os, subprocess\nfrom celery import Celery\n"
        "program = subprocess.Popen(['sleep', '60'])\n"
        "raise ValueError(program.pid)\n"
    )
    pid = int(ask(READY, "starting")["reason"].rpartition(" ")[2])
    wait_until(lambda: not alive(pid), 5, "the program's end")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("tasks", ["revoke", "--id", "1"]),
        ("dead_letters", ["list", "--queue", "demo.dead"]),
        ("backup", ["read", "--file", "messages", "--timeout", "3"]),
    ],
)
def test_no_thread_of_the_application_keeps_a_command_from_ending(tmp_path, command, words):
    (tmp_path / "waiting.py").write_text(
        "import threading\nfrom celery import Celery\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "app = Celery('waiting')\n"
        "app.conf.update(broker_connection_timeout=1, broker_transport_options={'max_retries': 1})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", f"celery_ops.cli.{command}", "-A", "waiting", *words],
        cwd=tmp_path, env=clean_environment(CELERY_BROKER_URL="amqp://127.0.0.1:1/"), capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1


def test_told_to_stop_still_answers(start):
    process = start(READY, "demo", timeout=60)
    # One that came before the application ignores TERM, the kernel would have dropped then.
    assert "imported\n" in iter(process.stderr.readline, "")
    process.send_signal(signal.SIGTERM)
    answer = json.loads(process.communicate(timeout=10)[0])
    assert (process.returncode, answer["ready"]) == (1, False)


@pytest.mark.parametrize(
    ("stats", "running", "busy"),
    [
        ({"pool": {"max-concurrency": 2}}, 1, False),
        ({"pool": {"max-concurrency": 2}}, 2, True),
        ({"pool": {"max-concurrency": 1}, "autoscaler": {"max": 3, "min": 1}}, 2, False),
        ({"pool": {"max-concurrency": 1}, "autoscaler": {"max": 3, "min": 1}}, 3, True),
    ],
)
def test_busy_is_a_node_all_of_whose_slots_run_tasks_those_that_it_may_grow_to_as_well(stats, running, busy):
    node = Node(None, None, "demo@host")
    node._ask = {"stats": stats, "active": [{"time_start": 1.0}] * running + [{"time_start": None}]}.get
    assert node._is_busy() is busy


def test_a_broadcast_is_consumed_by_its_alias(tmp_path, monkeypatch):
    """Its queue has a name of this process's own, and -Q has the alias."""
    monkeypatch.setattr("celery_ops.pause.file", lambda: tmp_path / "paused")
    node = Node(None, None, "demo@host")
    queues = [Queue("mail"), Broadcast("news")]
    node._ask = {"active_queues": [queue.as_dict(recurse=True) for queue in queues]}.get
    assert node.consumes(["mail", "news"]) == ["mail", "news"]
    with pytest.raises(RetryLater, match="does not consume from other"):
        node.consumes(["other"])
