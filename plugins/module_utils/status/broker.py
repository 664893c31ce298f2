"""What RabbitMQ on this host tells of an application, by one question: every rabbitmqctl starts an Erlang VM."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.services.rabbitmq_cluster import ctl

TIMEOUT = 30
"""Seconds that the broker has to answer."""

# Looking at a message changes nothing: it is neither delivered nor moved. A classic queue can't be looked into.
PEEK = """
Peek = fun Peek(Name, N, Most, Until) ->
    case N =< Most andalso erlang:monotonic_time(millisecond) < Until of
        true -> case catch rabbit_quorum_queue:peek(Vhost, Name, N) of
            {ok, Message} -> [Message | Peek(Name, N + 1, Most, Until)];
            _ -> []
        end;
        false -> []
    end
end,
Header = fun(Key, Message) -> proplists:get_value(<<"header.", Key/binary>>, Message) end,
"""
"""Erlang: `Peek` returns the first messages of a quorum queue of `Vhost`, until a moment; `Header` one of theirs."""

LOOKED = 100
"""Dead-lettered messages that are looked at."""

# Each queue is asked where its leader is: only that node has its numbers. What a version can't tell is null.
QUESTION = """
Vhost = base64:decode(<<"%s">>),
PEEK
Call = fun(N, M, F, A, Or) -> case rpc:call(N, M, F, A, 4000) of {badrpc, _} -> Or; V -> V end end,
Plain = fun(V) when is_integer(V); is_atom(V) -> V; (_) -> null end,
Items = [messages, messages_ready, messages_unacknowledged, consumers, state],
Queue = fun(Q) ->
    {resource, _, queue, Name} = amqqueue:get_name(Q),
    Info = Call(amqqueue:qnode(Q), rabbit_amqqueue, info, [Q, Items], [{state, down}]),
    maps:from_list([{name, base64:encode(Name)} | [{K, Plain(V)} || {K, V} <- Info]])
end,
Node = fun(N) ->
    Ask = fun(M, F) -> Plain(Call(N, M, F, [], null)) end,
    #{name => N,
      memory => Ask(vm_memory_monitor, get_process_memory), memory_limit => Ask(vm_memory_monitor, get_memory_limit),
      disk_free => Ask(rabbit_disk_monitor, get_disk_free), disk_limit => Ask(rabbit_disk_monitor, get_disk_free_limit),
      is_running => Ask(rabbit, is_running), is_here => N == node()}
end,
Consumer = fun(C) ->
    {resource, _, queue, Name} = proplists:get_value(queue_name, C),
    Channel = rabbit_misc:pid_to_string(proplists:get_value(channel_pid, C)),
    #{queue => base64:encode(Name), channel => list_to_binary(Channel)}
end,
Reason = fun(Message) ->
    case {Header(<<"x-celery-ops-purged">>, Message), Header(<<"x-death">>, Message)} of
        {undefined, [{table, Death} | _]} -> case lists:keyfind(<<"reason">>, 1, Death) of
            {_, _, Said} when is_binary(Said) -> base64:encode(Said);
            _ -> null
        end;
        {undefined, _} -> null;
        _ -> base64:encode(<<"purged">>)
    end
end,
Called = fun(Properties) ->
    case lists:keyfind(<<"connection_name">>, 1, Properties) of {_, _, Said} when is_binary(Said) -> Said; _ -> <<>> end
end,
Connection = fun(C) ->
    case catch rabbit_networking:connection_info(C, [vhost, name, client_properties]) of
        [{vhost, Vhost}, {name, Ends}, {client_properties, Properties}] ->
            [#{pid => list_to_binary(rabbit_misc:pid_to_string(C)), ends => base64:encode(Ends),
               name => base64:encode(Called(Properties))}];
        _ -> []
    end
end,
Connections = fun() -> lists:append([Connection(C) || C <- rabbit_networking:connections()]) end,
Alarm = fun({{resource_limit, What, N}, _}) -> #{node => N, alarm => What};
           (Other) -> #{node => node(), alarm => list_to_binary(lists:flatten(io_lib:format("~0p", [Other])))} end,
Answer = #{
    queues => [Queue(Q) || Q <- rabbit_amqqueue:list(Vhost)],
    consumers => [Consumer(C) || C <- Call(node(), rabbit_amqqueue, consumers_all, [Vhost], [])],
    connections => Call(node(), erlang, apply, [Connections, []], []),
    reasons => [Reason(M) || M <- Peek(base64:decode(<<"%s">>), 1, %d, erlang:monotonic_time(millisecond) + 800)],
    nodes => [Node(N) || N <- lists:usort([node() | nodes()])],
    alarms => [Alarm(A) || A <- rabbit_alarm:get_alarms()]
},
io:format("answer ~s~n", [base64:encode(iolist_to_binary(rabbit_json:encode(Answer)))]).
"""


@dataclass
class Answer:
    """What the broker said."""

    queues: list[dict[str, Any]] = field(default_factory=list)
    """`name`, `messages`, `messages_ready`, `messages_unacknowledged`, `consumers` and `state` of each."""
    consumers: list[dict[str, Any]] = field(default_factory=list)
    """`queue_name` and `channel_pid` of each, as list_consumers names them."""
    connections: list[dict[str, str]] = field(default_factory=list)
    """`pid`, `peer` (the client's address) and `name` (what the client calls itself) of each in the vhost."""
    reasons: list[str] = field(default_factory=list)
    """Why each of the first dead-lettered messages died."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, str]] = field(default_factory=list)


def ask(vhost: str, dead: str) -> Answer:
    """Return what the broker on this host tells of a vhost and its dead queue. Raises OperatorError, ValueError."""
    question = QUESTION.replace("PEEK", PEEK) % (encoded(vhost), encoded(dead), LOOKED)
    return answer_of(ctl("-t", str(TIMEOUT - 5), "eval", question, timeout=TIMEOUT))


def answer_of(said: str) -> Answer:
    """Return the answer in what rabbitmqctl printed. Raises ValueError where there is none."""
    found = re.search(r"^answer (\S+)$", said, re.MULTILINE)
    if not found:
        raise ValueError("no answer")
    given = json.loads(base64.b64decode(found[1]))
    queues = [{**row, "name": text(row["name"])} for row in given["queues"]]
    consumers = [{"queue_name": text(row["queue"]), "channel_pid": row["channel"]} for row in given["consumers"]]
    connections = [
        {"pid": row["pid"], "peer": text(row["ends"]).partition(" ")[0], "name": text(row["name"])}
        for row in given["connections"]
    ]
    reasons = [text(one) if one else "unknown" for one in given["reasons"]]
    return Answer(queues, consumers, connections, reasons, given["nodes"], given["alarms"])


def encoded(text: str) -> str:
    """Return a text as Erlang's source may have it."""
    return base64.b64encode(text.encode()).decode()


def text(encoded: str) -> str:
    """Return a name, which may be any bytes."""
    return base64.b64decode(encoded).decode(errors="replace")
