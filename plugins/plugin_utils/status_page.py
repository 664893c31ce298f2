"""The status of all hosts as one page: what the template shows, worked out from the document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.celery_ops.kit.plugins.module_utils.status.problems import UNHEALTHY
from ansible_collections.celery_ops.kit.plugins.module_utils.status.text import pause_end, pause_what, size
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).resolve().parents[2] / "templates/status"
FRESH = 4
"""Points of the last hour that tell how it is now."""
WIDTH, HEIGHT = 600, 100
"""Of a chart, in its own units: the page stretches it."""
GOOD_STATES = ("RUNNING", "STARTING")
ROLES = {
    "web": "Web",
    "scheduler": "Scheduler",
    "rabbitmq": "Broker",
    "worker": "Workers",
    "result_store": "Result store",
}
"""The kit's groups in the order in which a task passes, and their titles."""


def page(document: Mapping[str, Any]) -> str:
    """Return the page. Every text in it is escaped, whoever chose it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pause_what": pause_what,
        "pause_end": pause_end,
        "size": size,
        "span": span,
        "at": at,
        "number": number,
        "is_fine": is_fine,
        "sentence": sentence,
        "capital": capital,
    }
    return environment.get_template("page.html.j2").render(
        document=document,
        topology=topology(document),
        queues=sorted(
            (card for application in document["applications"] for card in queue_cards(application, document)),
            key=lambda card: (not card["is_bad"], card["is_dead"], -card["ready"], card["name"]),
        ),
        deploys=deploys(document),
        title=title(document),
    )


def title(document: Mapping[str, Any]) -> str:
    """Return the page's title: the verdict first, for a tab that shows little of it."""
    apps = ", ".join(one["app"] for one in document["applications"]) or "status"
    count = len(document["problems"])
    return f"{'OK' if not count else '1 problem' if count == 1 else f'{count} problems'} · {apps}"


def is_fine(program: Mapping[str, Any]) -> bool:
    """Whether a program is as it should be; an old generation may have ended."""
    ended = program["retiring"] and program["state"] in ("STOPPED", "EXITED", "STOPPING")
    return ended or (program["state"] in GOOD_STATES and program["health"] not in UNHEALTHY)


def sentence(text: str) -> str:
    """Return a text with its end."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def capital(text: str) -> str:
    """Return a text with its first character in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def topology(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return by role its hosts, and whether what they run of it is in order; without roles that no host has."""
    return [
        {"role": group, "title": heading, "hosts": hosts}
        for group, heading in ROLES.items()
        if (hosts := [found for host in document["hosts"] if (found := part(host, group))])
    ]


def part(host: Mapping[str, Any], group: str) -> dict[str, Any] | None:
    """Return what a host is in a role; None if it has nothing of it."""
    if group == "rabbitmq":
        broker = host["broker"]
        if not broker:
            return None
        nodes = broker["nodes"]
        fine = bool(nodes) and all(node["state"] == "running" and not node["alarms"] for node in nodes)
        return {"host": host["host"], "fine": fine, "says": f"RabbitMQ {broker['version'].partition('-')[0]}"}
    if group == "result_store":
        store = host["result_store"]
        if not store:
            return None
        says = f"Redis {store['version']}, {store['role']}" if store["reachable"] else "does not answer"
        return {"host": host["host"], "fine": store["reachable"] and not store["faults"], "says": says}
    programs = [one for one in host["programs"] if one["program"].startswith(f"{host['app']}-{group}")]
    if not programs:
        return None
    if group == "worker":
        busy, slots = (sum(one[key] or 0 for one in programs) for key in ("active", "slots"))
        says = f"{busy} of {slots} slots busy"
    else:
        known = [one["health"] or one["state"].lower() for one in programs if one["health"] or not one["pid"]]
        says = next(iter(known), "up")
    return {"host": host["host"], "fine": all(map(is_fine, programs)), "says": says}


def queue_cards(application: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is shown of each queue: its numbers and, where the last hour is known, charts."""
    hour = application["hour"]
    columns = {one["name"]: one for one in hour["queues"]} if hour else {}
    marks = deploy_marks(document, hour) if hour else []
    for queue in application["queues"]:
        known = columns.get(queue["name"], {})
        charts = [
            chart(what, known[column], unit, marks)
            for column, what, unit in (("ready", "Waiting", ""), ("rate", "Done a second", "/s"))
            if any(value is not None for value in known.get(column, []))
        ]
        is_bad = queue["ready"] and (queue["is_dead"] or not queue["consumers"])
        yield {**queue, "app": application["app"], "charts": charts, "is_bad": bool(is_bad)}


def deploy_marks(document: Mapping[str, Any], hour: Mapping[str, Any]) -> list[float]:
    """Return where deploys of the hour are, as a share of it."""
    begin, length = moment(hour["from"]), max(1, hour["every"] * (hour["count"] - 1))
    made = [entry for entry in deploys(document) if entry["action"] in ("deploy", "rollback")]
    shares = [(moment(entry["at"]) - begin) / length for entry in made]
    return sorted({round(share, 3) for share in shares if 0 <= share <= 1})


def chart(what: str, values: Sequence[float | None], unit: str, marks: Sequence[float]) -> dict[str, Any]:
    """Return a chart: paths in a box, and what it says in words."""
    known = [value for value in values if value is not None]
    top, step = nice(max(known)), WIDTH / max(1, len(values) - 1)
    lines, points = [], []
    for index, value in [*enumerate(values), (0, None)]:
        if value is not None:
            points.append((round(index * step, 1), round(HEIGHT - value / top * HEIGHT, 1)))
        elif points:
            lines.append(points if len(points) > 1 else [points[0], (points[0][0] + 2, points[0][1])])
            points = []
    paths = [" L".join(f"{x:g},{y:g}" for x, y in line) for line in lines]
    last = next((value for value in reversed(values[-FRESH:]) if value is not None), None)
    now = "–" if last is None else f"{number(last)}{unit}"
    return {
        "what": what,
        "lines": [f"M{path}" for path in paths],
        "areas": [
            f"M{line[0][0]:g},{HEIGHT} L{path} L{line[-1][0]:g},{HEIGHT} Z"
            for line, path in zip(lines, paths, strict=True)
        ],
        "marks": [round(share * WIDTH, 1) for share in marks],
        "top": f"{number(top)}{unit}",
        "last": now,
        "label": f"{what} over the last hour: now {now}, at most {number(max(known))}{unit}"
        + (f"; {len(marks)} deploys" if len(marks) > 1 else "; 1 deploy" if marks else ""),
    }


def nice(highest: float) -> float:
    """Return a round number that is not less: the top of a chart."""
    power = 1.0
    while power < highest:
        power *= 10
    return (
        next(power * part for part in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1) if power * part >= highest)
        if highest > 0
        else 1.0
    )


def deploys(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of all hosts' audit logs, each once with its hosts, newest first."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for host in document["hosts"]:
        for entry in host["deploys"]:
            key = (*(entry[name] for name in ("action", "who", "from", "to", "outcome")), entry["at"][:16])
            found.setdefault(key, {**entry, "hosts": []})["hosts"].append(host["host"])
    return sorted(found.values(), key=lambda entry: moment(entry["at"]), reverse=True)[:12]


def moment(text: str) -> float:
    """Return an ISO 8601 moment as Unix time; 0 for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def at(text: str | None) -> str:
    """Return a moment as people read it, in UTC as all of the page."""
    return text[:16].replace("T", " ") if text else "–"


def number(value: float | None) -> str:
    """Return a number as people read it."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def span(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "–"
    for unit, length, next_unit, part_length in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} {int(seconds % length // part_length)} {next_unit}"
    return f"{seconds:.0f} s"
