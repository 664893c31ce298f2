"""check.yml's look at the page: 202 means "ask again", whatever else is not 200 is a failure."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TASK = "check | Request the page"


@pytest.fixture
def served():
    """Serve these answers, one after another, the last one for ever; `asked` counts."""
    answers, asked = [], []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield answers, asked, server.server_port
        server.shutdown()


def check(tmp_path, port):
    """Run that task of the role alone."""
    variables = {
        "celery_web_bind": f"127.0.0.1:{port}",
        "celery_app_check_url": "/",
        "__celery_app_check": {"found": {}},
    }
    variables |= {"celery_app_check_host": "", "celery_app_check_https": False}
    tasks = [{"import_tasks": str(ROOT / "roles/celery/tasks/check.yml")}]
    play = {"hosts": "web", "gather_facts": False, "vars": variables, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "hosts").write_text("[web]\nhere ansible_connection=local\n")
    words = ("ansible-playbook", "-i", tmp_path / "hosts", "--start-at-task", TASK, tmp_path / "play.yml")
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    return subprocess.run(words, env={**os.environ, **settings}, capture_output=True, text=True)


def test_a_page_that_waits_for_its_task_is_asked_again(served, tmp_path):
    answers, asked, port = served
    answers += [202, 202, 200]
    done = check(tmp_path, port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(asked) == 3


def test_a_page_that_fails_is_a_failure_at_once(served, tmp_path):
    answers, asked, port = served
    answers += [500]
    done = check(tmp_path, port)
    assert done.returncode != 0
    assert "500" in done.stdout, done.stdout + done.stderr
    assert len(asked) == 1
