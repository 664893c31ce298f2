"""The tasks that wait for their time in the broker's delay queues: looked at where they are, on the broker's host."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.layout import DELAY_LEVELS
from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import ctl
from ansible_collections.celery_ops.kit.plugins.module_utils.status.broker import PEEK, encoded, text

LOOKED = 50
"""Messages of each delay queue that are looked at: the first ones."""
QUESTION = (
    'Vhost = base64:decode(<<"%s">>),'
    + PEEK
    + """
Coded = fun(V) when is_binary(V) -> base64:encode(V); (_) -> null end,
Until = erlang:monotonic_time(millisecond) + 4000,
Look = fun(Level) ->
    Name = iolist_to_binary(["celery_delayed_", integer_to_list(Level)]),
    [[Coded(hd(proplists:get_value(<<"routing_keys">>, M))),
      Coded(Header(<<"id">>, M)), Coded(Header(<<"task">>, M)), Coded(Header(<<"eta">>, M))]
        || M <- Peek(Name, 1, %d, Until)]
end,
Answer = [Look(Level) || Level <- lists:seq(0, %d)],
io:format("answer ~s~n", [base64:encode(iolist_to_binary(rabbit_json:encode(Answer)))]).
"""
)


def delayed(vhost: str) -> dict[str, Any]:
    """Return the `tasks` (`queue`, `id`, `name`, `eta`) at the head of each delay queue, and whether there are `more`.

    Raises OperatorError, ValueError.
    """
    return tasks_of(ctl("-t", "20", "eval", QUESTION % (encoded(vhost), LOOKED, DELAY_LEVELS - 1), timeout=25))


def printable(given: str) -> str:
    """Return what anybody may have written into a message, as one short line."""
    return "".join(each if each.isprintable() else "?" for each in given[:200])


def tasks_of(said: str) -> dict[str, Any]:
    """Return the tasks in what rabbitmqctl printed. Raises ValueError where there is no answer."""
    found = re.search(r"^answer (\S+)$", said, re.MULTILINE)
    if not found:
        raise ValueError("no answer")
    levels = json.loads(base64.b64decode(found[1]))
    rows = [[printable(text(part)) if part else "" for part in row] for level in levels for row in level]
    tasks = [
        {"queue": key.split(".", DELAY_LEVELS)[-1], "id": id_, "name": name, "eta": eta} for key, id_, name, eta in rows
    ]
    return {"tasks": tasks, "more": any(len(level) >= LOOKED for level in levels)}
