"""``celery-ops-dead-letters``: lists, replays or discards the tasks in an application's dead queue, and loses none.
`purge` moves what waits in another queue there, from where it can be replayed.

A message is fetched without being taken: until it is acknowledged, the broker gives it back whatever becomes of
this program. `replay` acknowledges after the broker has confirmed the copy: an end half-way can leave a task in both
queues, never in neither.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery_ops.errors import TAKES_NOTHING, OperatorError, PermanentError
from celery_ops.layout import HOUSEKEEPING_QUEUES
from celery_ops.probe import leave
from celery_ops.task_lists import span

if TYPE_CHECKING:
    from amqp import Channel, Message

PATIENCE = 10.0
"""Seconds the broker may take for one answer."""
LOOK = 1000
"""Messages that `list` fetches, at most: each one is a question to the broker."""
SHOW = 20
"""Tasks that `list` names one by one."""
PLAYBOOK = "ansible-playbook playbooks/dead_letters.yml"
OPTION = "-e celery_app_dead_letters"

PURGED = "x-celery-ops-purged"
"""The header of a message that `purge` moved: its queue and when."""
# What the broker and `purge` write into the headers of a dead-lettered message; a replayed one starts anew.
MARKS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", PURGED)
# What each of the broker's reasons means, and what to do.
REASONS = {
    "rejected": ("", ""),
    "expired": (
        "expired: it waited for a worker too long",
        "replay what is still wanted (it then runs, expired or not); discard the rest",
    ),
    "delivery_limit": (
        "delivery limit: again and again the process that ran it died",
        "look for its id in the workers' logs first; replayed, it may kill their processes again",
    ),
    "maxlen": ("the queue was full", "replay, once workers keep up"),
    "purged": (
        "purged: an operator has emptied its queue (purge.yml)",
        "replay to undo that; discard what nobody wants",
    ),
}


@dataclass(frozen=True)
class DeadTask:
    """A dead-lettered task, in an operator's words."""

    tag: int
    task: str
    id: str
    reason: str
    queue: str
    died: datetime | None
    content_type: str

    @classmethod
    def read(cls, tag: int, properties: Mapping[str, Any]) -> "DeadTask":
        """Read the properties of a message; it may come from anybody, and hold anything."""
        headers = properties.get("application_headers")
        headers = headers if isinstance(headers, Mapping) else {}
        deaths = headers.get("x-death")
        # The newest comes first. The oldest may be no death at all: a countdown waits in queues that expire.
        death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], Mapping) else {}
        if isinstance(headers.get(PURGED), Mapping):  # an older death was that of a countdown, or is replayed
            death = {"reason": "purged", **headers[PURGED]}
        died = death.get("time")
        return cls(
            tag=tag,
            task=printable(headers.get("task")),
            id=printable(headers.get("id") or properties.get("correlation_id")),
            reason=printable(death.get("reason")),
            queue=str(death.get("queue") or ""),
            died=died.replace(tzinfo=died.tzinfo or UTC) if isinstance(died, datetime) else None,
            content_type=printable(properties.get("content_type")),
        )

    def age(self, now: datetime) -> str:
        """How long it is dead."""
        return span((now - self.died).total_seconds()) if self.died else "?"


def printable(value: Any) -> str:
    """`value` as one short word for a terminal; `?` for nothing."""
    text = "".join(char if char.isprintable() else "?" for char in str(value or "?"))
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class Selection:
    """Which tasks are meant; empty parts mean all."""

    task: str = ""
    id: str = ""
    reason: str = ""
    queue: str = ""

    def takes(self, dead: DeadTask) -> bool:
        """Tell whether this task is meant."""
        wanted = ((self.task, dead.task), (self.id, dead.id), (self.reason, dead.reason), (self.queue, dead.queue))
        return all(not want or want == got for want, got in wanted)

    def __str__(self) -> str:
        """The selection for people, such as ` with task shop.add`."""
        parts = [f"{name} {value}" for name, value in vars(self).items() if value]
        return f" with {' and '.join(parts)}" if parts else ""


class DeadQueue:
    """The dead queue, over one channel."""

    def __init__(self, channel: "Channel", name: str) -> None:
        self.channel, self.name = channel, name
        self.returned: list[str] = []
        channel.events["basic_return"].add(lambda error, *_: self.returned.append(str(error)))

    def __len__(self) -> int:
        """The number of messages that nobody holds. Raises OperatorError where there is no such queue."""
        from amqp.exceptions import NotFound

        try:
            return self.channel.queue_declare(self.name, passive=True).message_count
        except NotFound:
            raise OperatorError(
                f"there is no queue {self.name}; make it with: ansible-playbook playbooks/site.yml. At a broker that "
                "celery_app_broker_url names, whoever administers it makes it: docs/dead-letters.md"
            ) from None

    def fetch(self, selection: Selection, most: int) -> Iterator[tuple[DeadTask, "Message"]]:
        """Fetch the chosen ones among at most `most` messages; all but those acknowledged go back in the end.

        `most` also bounds a replay whose tasks die again at once: they come back behind the others.
        """
        for _ in range(most):
            message = self.channel.basic_get(self.name, no_ack=False)
            if message is None:
                return
            dead = DeadTask.read(message.delivery_tag, message.properties)
            if selection.takes(dead):
                yield dead, message

    def give_back(self, count: int) -> None:
        """Put back what was fetched and not acknowledged, and wait until `count` are there for the next who looks."""
        self.channel.basic_recover(requeue=True)
        deadline = time.monotonic() + PATIENCE
        while len(self) < count and time.monotonic() < deadline:
            time.sleep(0.02)

    def replay(self, dead: DeadTask, message: "Message") -> str:
        """Put a copy into the queue it came from, then take the dead one; return why not, or nothing."""
        if not dead.queue:
            return "it does not say which queue it came from"
        # Straight into that queue: its exchange may serve others, which have had theirs.
        if not self.publish(revived(message), dead.queue):
            return f"its queue {dead.queue} is gone"
        self.channel.basic_ack(dead.tag)
        return ""

    def publish(self, message: "Message", queue: str) -> bool:
        """Put a message into a queue, confirmed; tell whether there is such a queue. Raises OperatorError."""
        self.returned.clear()
        try:
            self.channel.basic_publish_confirm(
                message, exchange="", routing_key=queue, mandatory=True, timeout=PATIENCE
            )
        except TimeoutError:
            raise OperatorError(f"the broker {TAKES_NOTHING}") from None
        return not self.returned

    def take_from(self, source: str, most: int) -> Iterator[DeadTask]:
        """Move `most` messages of another queue here, and yield each once it is moved. Raises OperatorError."""
        for _ in range(most):
            message = self.channel.basic_get(source, no_ack=False)
            if message is None:
                return
            if not self.publish(purged(message, source), self.name):
                raise OperatorError(f"the queue {self.name} is gone; make it with: ansible-playbook playbooks/site.yml")
            self.channel.basic_ack(message.delivery_tag)
            yield DeadTask.read(message.delivery_tag, message.properties)

    def discard(self, dead: DeadTask, _: "Message") -> str:
        """Remove it."""
        self.channel.basic_ack(dead.tag)
        return ""


def revived(message: "Message") -> "Message":
    """The message as it was first sent: no marks of its death, and nothing that would make it expire."""
    from amqp import Message

    properties = dict(message.properties)
    headers = dict(properties.get("application_headers") or {})
    headers = {name: value for name, value in headers.items() if not name.startswith(MARKS)}
    if headers.get("expires"):
        headers["expires"] = None  # whoever replays it wants it run; a worker would drop it silently
    return Message(message.body, **{**properties, "application_headers": headers, "delivery_mode": 2})


def purged(message: "Message", queue: str) -> "Message":
    """The message as it waits in the dead queue, where it must not expire."""
    from amqp import Message

    properties = {name: value for name, value in message.properties.items() if name != "expiration"}
    mark = {"queue": queue, "time": datetime.now(UTC).replace(tzinfo=None)}  # AMQP's times have no zone
    headers = {**(properties.get("application_headers") or {}), PURGED: mark}
    return Message(message.body, **{**properties, "application_headers": headers, "delivery_mode": 2})


def no_queue_of(app: str, queue: str, dead: str, known: Iterable[str]) -> str:
    """Return why this queue may not be purged: it is not one of the application's own. Empty where it may."""
    names = sorted({*known, *queues_of(app)})
    if queue == dead:
        return f"celery_app_purge: {queue} is the dead queue itself. To discard: {PLAYBOOK} {OPTION}=discard"
    if re.fullmatch(HOUSEKEEPING_QUEUES, queue):
        return f"celery_app_purge: {queue} is a queue of Celery, RabbitMQ or the kit, and holds no waiting tasks"
    if queue not in names:
        return f"celery_app_purge: {queue} is not a queue of this application. It has: {', '.join(names) or 'none'}"
    return ""


def queues_of(app: str) -> set[str]:
    """Return the queues that the application names itself; none where it can't be imported."""
    from celery_ops.cli.inspect import consumed, routed
    from celery_ops.probe import load_app

    try:
        found = load_app(app)
        return {*consumed(found), *routed(found)}
    except PermanentError:
        return set()


@dataclass(frozen=True)
class Known:
    """What the current release knows; nothing where it can't be imported."""

    tasks: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """By id, what a task raised (celery_app_keep_failed)."""

    @classmethod
    def load(cls, app: str, ids: Iterable[str] = ()) -> "Known":
        """Import the application as ``celery -A`` does. One that is broken must not hide the dead-lettered tasks."""
        from kombu.serialization import prepare_accept_content

        from celery_ops.probe import load_app

        try:
            found = load_app(app)
        except PermanentError:
            return cls()
        contents = frozenset(prepare_accept_content(found.conf.accept_content))
        return cls(frozenset(found.tasks), contents, exceptions_of(found, ids))

    def judge(self, dead: DeadTask) -> tuple[str, str]:
        """Return why a task is dead, as well as it can be told, and what to do about it."""
        if dead.reason != "rejected":
            return REASONS.get(dead.reason, (dead.reason, "replay, if what caused it is fixed"))
        if self.contents and dead.content_type not in self.contents:
            return (
                f"rejected: its content is {dead.content_type}, which is not accepted by any worker",
                "find who sends it: it has to send JSON; then discard",
            )
        if self.tasks and dead.task not in self.tasks:
            return (
                "rejected: no task of this name in the current release",
                "deploy a release that has this task, then replay",
            )
        if dead.id in self.exceptions:
            return (f"failed: {self.exceptions[dead.id]}", "fix what raised it, deploy, then replay")
        return (
            "rejected: by the task itself, damaged, or before there was a task of this name",
            "replay; what is damaged dies again",
        )


def exceptions_of(app: Any, ids: Iterable[str]) -> dict[str, str]:
    """Return what these tasks raised, as far as the result store still knows; nothing where it can't be reached."""
    found: dict[str, str] = {}
    with contextlib.suppress(Exception):
        for one in ids:
            meta = app.backend.get_task_meta(one)
            if meta.get("status") == "FAILURE":
                found[one] = printable(type(meta["result"]).__name__)
    return found


def report(dead_tasks: list[DeadTask], looked: int, total: int, queue: str, known: Known, now: datetime) -> list[str]:
    """Return what `list` says of the chosen tasks: in groups, then the newest, then what to type next."""
    head = f"{total} dead letter{'' if total == 1 else 's'} in {queue}"
    if looked < total:
        head += f", of which the first {looked} were looked at"
    if not dead_tasks:
        return [f"{head}; none to show" if total else f"{head}; nothing to do"]
    dead_tasks = sorted(dead_tasks, key=lambda dead: dead.died or datetime.min.replace(tzinfo=UTC), reverse=True)
    groups: dict[tuple[str, str, tuple[str, str]], list[DeadTask]] = {}
    for dead in dead_tasks:
        groups.setdefault((dead.task, dead.queue, known.judge(dead)), []).append(dead)
    lines = [head]
    for (task, source, (why, what)), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        ages = dict.fromkeys((group[0].age(now), group[-1].age(now)))
        lines += [
            f"{len(group)} x {task} from queue {source or '?'}, dead for {' to '.join(ages)}",
            f"    why: {why}",
            f"    do:  {what}",
        ]
    lines.append("One by one:" if len(dead_tasks) <= SHOW else f"The newest {SHOW}:")
    lines += [f"    {one.id}  {one.task}  {one.reason}  {one.age(now)}" for one in dead_tasks[:SHOW]]
    return [
        *lines,
        f"To replay:  {PLAYBOOK} {OPTION}=replay",
        f"To discard: {PLAYBOOK} {OPTION}=discard {OPTION}_confirm=yes",
        f"Some only:  {option('task', dead_tasks[0].task)}, or _id, _queue, _reason (as above), _max",
    ]


def option(name: str, value: str) -> str:
    """Return an option as it is typed. The value is anybody's: a shell would run it, and Ansible a template in it."""
    if re.fullmatch(r"[\w.:@/+-]+", value):
        return f"{OPTION}_{name}={value}"
    if "{" in value or not value.isprintable():
        return f"{OPTION}_{name}=..."
    return f"-e {shlex.quote(json.dumps({f'celery_app_dead_letters_{name}': value}, ensure_ascii=False))}"


def work(
    do: Callable[[DeadTask, "Message"], str],
    dead_tasks: Iterable[tuple[DeadTask, "Message"]],
    most: int,
    done: list[DeadTask],
) -> list[str]:
    """Do it to `most` tasks at most (0: all), adding them to `done`; return why some were left."""
    left = []
    for dead, message in dead_tasks:
        why_not = do(dead, message)
        if why_not:
            left.append(f"left where it is: {dead.task} {dead.id}: {why_not}")
        else:
            done.append(dead)
        if most and len(done) >= most:
            break
    return left


def main(argv: list[str] | None = None) -> None:
    """List, replay or discard dead letters."""
    options = _options(argv)
    output, sys.stdout = sys.stdout, sys.stderr  # an application may print while it is imported
    done: list[DeadTask] = []
    status = 0
    try:
        lines = _run(options, done)
    except (Exception, KeyboardInterrupt) as error:
        said = str(error) if isinstance(error, OperatorError) else f"{type(error).__name__}: {error}"
        print(f"celery-ops-dead-letters: {said}", file=sys.stderr)
        if options.action in ("replay", "purge") and not isinstance(error, PermanentError):
            print(
                f"{len(done)} moved before that. None is lost; one may be in both queues and run twice. "
                "Fix the cause, then type the same again.",
                file=sys.stderr,
            )
        if options.action == "discard" and done:
            print(f"{len(done)} discarded before that.", file=sys.stderr)
        status = 1
    else:
        print("\n".join(lines), file=output, flush=True)
    if options.app:
        leave(status)
    if status:
        sys.exit(status)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="celery-ops-dead-letters", description="List, replay or discard what is in a dead queue."
    )
    parser.add_argument("action", choices=["list", "replay", "discard", "purge"])
    parser.add_argument("--queue", required=True, help="the dead queue, e.g. petct.dead")
    parser.add_argument("-A", "--app", help="the application, as for celery -A; list then tells unknown names")
    parser.add_argument("--task", default="", help="only messages of this task")
    parser.add_argument("--id", default="", help="only the message with this task id")
    parser.add_argument("--from-queue", default="", metavar="QUEUE", help="only messages that came from this queue")
    parser.add_argument("--reason", default="", choices=["", *REASONS], help="only messages that died of this")
    parser.add_argument("--max", type=int, default=0, metavar="NUMBER", help="this many at most (0: all)")
    parser.add_argument("--confirm", default="", help="has to be yes to discard, or the name of the queue to purge")
    parser.add_argument("--source", default="", metavar="QUEUE", help="the queue to purge")
    parser.add_argument("--known", default="", help="further queues of the application, with commas between")
    parser.add_argument("--count", action="store_true", help="purge: only say how many messages there are")
    options = parser.parse_args(argv)
    if options.action == "purge" and not options.count and options.confirm != options.source:
        parser.error("celery_app_purge_confirm is not the name of the queue to purge; nothing was purged")
    if options.action == "discard" and options.confirm != "yes":
        parser.error(f"discarding is permanent; nothing was discarded. Confirm: --confirm yes, or {OPTION}_confirm=yes")
    return options


def ssl_of(app: str) -> dict[str, Any]:
    """The application's settings of a TLS connection; empty for none, and for an application that can't be imported."""
    from celery_ops.probe import load_app

    try:
        settings = load_app(app).conf.broker_use_ssl if app else None
    except PermanentError:
        settings = None
    return {"ssl": settings} if settings else {}


def _run(options: argparse.Namespace, done: list[DeadTask]) -> list[str]:
    from kombu import Connection

    from celery_ops.probe import unreached

    url = os.environ.get("CELERY_BROKER_URL")
    if not url:
        raise OperatorError("CELERY_BROKER_URL is not set; type: <app> celery-ops-dead-letters ... (as root)")
    selection = Selection(options.task, options.id, options.reason, options.from_queue)
    transport = {"read_timeout": PATIENCE, "write_timeout": PATIENCE}
    # Whatever happens in here, with the connection's end every message that was not acknowledged is in the queue again.
    ssl = ssl_of(options.app)
    with Connection(url, connect_timeout=4, transport_options=transport, **ssl) as connection:
        try:
            # Each of several URLs, and then the first again.
            connection.ensure_connection(max_retries=len(connection.alt) or 1, reraise_as_library_errors=False)
            channel = connection.channel()
        except Exception as error:
            said = error or type(error).__name__
            raise OperatorError(f"broker {unreached(connection)} can't be reached: {said}") from error
        queue = DeadQueue(channel, options.queue)
        total = len(queue)
        if options.action == "purge":
            return purge(queue, options, done)
        if options.action == "list":
            looked = [dead for dead, _ in queue.fetch(Selection(), min(total, options.max or LOOK))]
            queue.give_back(total)
            chosen = [dead for dead in looked if selection.takes(dead)]
            rejected = [dead.id for dead in chosen if dead.reason == "rejected"]
            known = Known.load(options.app, rejected) if options.app else Known()
            return report(chosen, len(looked), total, options.queue, known, datetime.now(UTC))
        do = {"replay": queue.replay, "discard": queue.discard}[options.action]
        left = work(do, queue.fetch(selection, total), options.max, done)
        queue.give_back(total - len(done))
    if not done:
        return [f"unchanged: {total} dead letters in {options.queue}, none to {options.action}{selection}", *left]
    said = f"{len(done)} of {total} dead letters {options.action.removesuffix('e')}ed{selection}"
    return [f"{said}; {total - len(done)} left in {options.queue}", *left]


def purge(dead: DeadQueue, options: argparse.Namespace, done: list[DeadTask]) -> list[str]:
    """Move what waits in a queue to the dead queue, adding it to `done`; return what came of it."""
    from amqp.exceptions import NotFound

    source = options.source
    if why_not := no_queue_of(options.app or "", source, dead.name, filter(None, options.known.split(","))):
        raise PermanentError(why_not)
    try:
        before = dead.channel.queue_declare(source, passive=True).message_count
    except NotFound:
        raise PermanentError(f"celery_app_purge: the broker has no queue {source}") from None
    if options.count:
        return [f"{before} messages wait in {source}; {len(dead)} in {dead.name}"]
    for task in dead.take_from(source, min(before, options.max or before)):
        done.append(task)
    after = dead.channel.queue_declare(source, passive=True).message_count
    undo = f"{PLAYBOOK} {OPTION}=replay {OPTION}_reason=purged {option('queue', source)}"
    return [
        *([f"To undo it: {undo}"] if done else []),
        f"{'' if done else 'unchanged: '}{len(done)} of {before} messages of {source} moved to {dead.name}; "
        f"{after} in {source} now",
    ]


if __name__ == "__main__":
    main()
