"""Applications as their owners write them: set-up, task, page, deploy under load, broken release, rollback."""

import shlex

import pytest
from support.load import Load
from support.wait import wait_until

FLOOD = """
from celery_ops.probe import load_app
app = load_app("edition")
task = app.amqp.create_task_message("0", "edition.nap", [5], ignore_result=True)
patient = {"confirm_publish": False, "read_timeout": 60, "write_timeout": 60}
with app.connection_for_write(transport_options=patient) as connection:
    with connection.channel() as channel:
        producer = connection.Producer(channel, routing_key="celery", serializer="json")
        for number in range(100_000):
            producer.publish(task.body, headers={**task.headers, "id": str(number)}, **task.properties)
            if number % 1000 == 0:  # its answer comes after what was published before
                channel.queue_declare("celery", passive=True)
        print(channel.queue_declare("celery", passive=True).message_count)
"""

pytestmark = pytest.mark.timeout(900)
BROKEN = """
from celery.signals import worker_init


@worker_init.connect
def stop(**_):
    raise SystemExit("this release is broken")
"""


def test_a_task_goes_there_and_back(app):
    task, arguments, result = app.app.task
    assert result in app.call(task, *arguments)


@pytest.mark.needs("page")
def test_its_page_answers_with_what_a_worker_did(app):
    path, text = app.app.page
    assert text in app.page(path)


@pytest.mark.needs("commands")
def test_a_users_commands_work(app):
    for command, output in app.app.commands.items():
        assert output in app.command(command)


@pytest.mark.full
@pytest.mark.of_the_kit
def test_a_second_run_changes_nothing(app):
    before = app.programs()
    run = app.play("site")
    assert (run.rc, run.changed[app.host.name]) == (0, 0), run.text[-6000:]
    assert app.programs() == before


@pytest.mark.deploy
def test_a_code_only_deploy_under_load_loses_nothing(app):
    before = app.host.current()
    load = Load(app.host, module=app.celery, queue=app.app.queue)
    wait_until(load.begun, 60, "tasks of the load")
    app.write("second", "\nRELEASE = 2\n")
    run = app.play("deploy")
    books = load.finish()
    assert run.rc == 0, run.text[-8000:]
    assert app.host.current() != before
    assert (books["lost"], books["doubled"], books["without_consumer"]) == ([], [], 0), books
    assert books["confirmed"] > 50 and len(books["releases"]) == 2, books
    test_a_task_goes_there_and_back(app)


@pytest.mark.full
def test_a_rollback_goes_to_the_release_before(app):
    before = app.host.current()
    run = app.play("rollback")
    assert run.rc == 0, run.text[-6000:]
    assert app.host.current() != before
    test_a_task_goes_there_and_back(app)
    if app.app.page:
        test_its_page_answers_with_what_a_worker_did(app)


@pytest.mark.full
@pytest.mark.of_the_kit
def test_a_broken_release_goes_back(app):
    before = app.host.current(), app.programs()
    app.write("broken", BROKEN)
    run = app.play("deploy")
    assert run.rc != 0
    assert "this release is broken" in run.words, run.text[-6000:]
    assert app.host.current() == before[0]
    test_a_task_goes_there_and_back(app)


@pytest.mark.full
@pytest.mark.needs("flood")
def test_a_check_and_a_deploy_pass_while_all_slots_are_busy_and_a_hundred_thousand_tasks_wait(app):
    waiting = app.host.output(f"{app.app.name} python -c {shlex.quote(FLOOD)} 2>&1")
    assert waiting.split()[-1].isdigit() and int(waiting.split()[-1]) > 99_000, waiting
    run = app.play("check")
    assert run.rc == 0 and run.seconds < 90, run.text[-6000:]
    assert "tasks wait in queue celery, 2 of 2 slots are busy" in run.words
    before = app.host.current()
    app.write("flooded", "\nRELEASE = 4\n")
    run = app.play("deploy")
    assert run.rc == 0, run.text[-6000:]
    assert app.host.current() != before
    app.host.run(f"rabbitmqctl -q -p {app.app.name} purge_queue celery")
    test_a_task_goes_there_and_back(app)
