"""``celery-ops-tasks``: what the workers of this host run, hold and have scheduled; revoke, terminate, limit.

The lists come from the workers' own files (`celery_ops.worker.task_list`), so they are there while the broker is down.
What changes something is a broadcast to all workers of the application, on all hosts.
"""

import argparse
import difflib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from celery_ops import proc, task_lists
from celery_ops.errors import OperatorError, PermanentError, RetryLater
from celery_ops.launch.env import application_name
from celery_ops.layout import DELAY_LEVELS, REQUESTS, Layout
from celery_ops.probe import leave, output_alone
from celery_ops.worker.revoked import Revocations

if TYPE_CHECKING:
    from celery import Celery

PATIENCE = 3.0
"""Seconds that workers have to answer."""
BY_HAND = "by-operator"
"""The file of revocations that an operator has made, beside those of the workers."""


def main(argv: list[str] | None = None) -> NoReturn:
    """Show the tasks, or do what is asked."""
    options = _options(argv)
    output = output_alone()
    try:
        answer = ACTIONS[options.action](options)
    except Exception as error:
        said = str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
        print(f"celery-ops-tasks: {said}", file=sys.stderr)
        leave(1)
    print(answer if isinstance(answer, str) else json.dumps(answer), file=output, flush=True)
    leave()


def show(options: argparse.Namespace) -> str:
    """Return the tasks of this host's workers, for people."""
    found = task_lists.read(options.name_of_app, Layout(options.name_of_app).run, REQUESTS, proc.start_of)
    chosen = task_lists.Chosen(options.name, options.program, "")
    return "\n".join(task_lists.lines({os.uname().nodename: found}, chosen, time.time()))


def ask(options: argparse.Namespace) -> dict[str, Any]:
    """Return what only the broker knows: how many tasks wait for their time there; and, if asked, arguments."""
    app = loaded(options)
    found: dict[str, Any] = {"delayed": [*delayed(app)], "arguments": {}}
    if options.arguments:
        inspect = app.control.inspect(timeout=PATIENCE)
        for answers in (inspect.active(safe=True), inspect.reserved(safe=True)):
            for tasks in (answers or {}).values():
                found["arguments"] |= {one["id"]: f"args {one['args']} kwargs {one['kwargs']}" for one in tasks}
    return found


def delayed(app: "Celery") -> Iterator[tuple[int, int]]:
    """Yield for each delay queue with tasks in it within how many seconds they are due, and how many they are.

    Counted, not read: a message that is fetched and given back counts as delivered once more, and dies of too many.
    """
    from amqp.exceptions import NotFound

    with app.connection_for_read(connect_timeout=4) as connection:
        connection.ensure_connection(max_retries=1, reraise_as_library_errors=False)
        if connection.transport.driver_type != "amqp":
            return
        for level in range(DELAY_LEVELS):
            channel = connection.channel()
            try:
                count = channel.queue_declare(f"celery_delayed_{level}", passive=True).message_count
            except NotFound:
                return  # an application without quorum queues has none
            channel.close()
            if count:
                yield 2 ** (level + 1), count


def note(options: argparse.Namespace) -> dict[str, Any]:
    """Note revocations on this host, for workers that start later or don't hear the broadcast."""
    directory = Layout(options.name_of_app).revoked
    if not directory.parent.is_dir():
        raise PermanentError(f"{directory.parent} is missing; make it with: ansible-playbook playbooks/site.yml")
    Revocations(directory, BY_HAND).add(options.id)
    return {"noted": len(options.id)}


def send(options: argparse.Namespace) -> dict[str, Any]:
    """Tell all workers; return what each of them answered. Raises RetryLater without a broker."""
    from kombu.exceptions import OperationalError

    app, what = loaded(options), options.action
    arguments: dict[str, Any] = {"task_id": options.id}
    if what == "terminate":
        what, arguments = "revoke", {**arguments, "terminate": True, "signal": options.signal}
    elif what != "revoke":
        task = known_task(app, options.name)
        arguments = {"task_name": task, "rate_limit": options.rate}
        if what == "time_limit":
            arguments = {"task_name": task, "hard": options.hard, "soft": options.soft or None}
    try:
        replies = app.control.broadcast(what, arguments=arguments, reply=True, timeout=PATIENCE)
    except (OSError, OperationalError, *app.connection_for_write().connection_errors) as error:
        kept = " Revocations are kept on the hosts: a worker that starts applies them." if options.id else ""
        raise RetryLater(f"the broker can't be reached: {error}.{kept} Once it is back, type the same again") from error
    return {"answers": {node: said for reply in replies or [] for node, said in reply.items()}}


def known_task(app: "Celery", name: str) -> str:
    """Return the name of a task that there is. Raises PermanentError, with the nearest one."""
    app.loader.import_default_modules()
    if name in app.tasks:
        return name
    near = difflib.get_close_matches(name, app.tasks, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(sorted(one for one in app.tasks if not one.startswith(("celery.", "celery_ops."))))
    raise PermanentError(f"the current release has no task {name}{meant}. Available: {names or 'none'}")


def loaded(options: argparse.Namespace) -> "Celery":
    """Return the application. Raises PermanentError where it can't be imported."""
    from celery_ops.probe import load_app

    if not options.app:
        raise PermanentError("-A is missing: the application, as for celery -A")
    return load_app(options.app)


ACTIONS: dict[str, Any] = {
    "list": show,
    "ask": ask,
    "note": note,
    **dict.fromkeys(("revoke", "terminate", "rate_limit", "time_limit"), send),
}


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celery-ops-tasks", description="Show, revoke or limit an application's tasks."
    )
    parser.add_argument("action", nargs="?", default="list", choices=[*ACTIONS])
    parser.add_argument("-A", "--app", help="the application, as for celery -A; for all but list and note")
    parser.add_argument("--name-of-app", default=application_name(""), help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help="a task's name; for list, it may be a pattern such as shop.*")
    parser.add_argument("--program", default="", help="list only this program's, such as worker-default")
    parser.add_argument("--id", action="append", default=[], help="a task's id; may be given several times")
    parser.add_argument("--arguments", action="store_true", help="ask: the arguments of the tasks, too")
    parser.add_argument("--signal", default="SIGTERM", help="what terminate sends the task's process")
    parser.add_argument("--rate", default="", help="such as 10/m; 0 for none")
    parser.add_argument("--hard", type=float, help="seconds a task may take")
    parser.add_argument("--soft", type=float, help="seconds after which it is told to end")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
