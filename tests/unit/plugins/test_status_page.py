"""The page of the status: what it shows, and that names are no markup in it. tests/operate looks at it."""

import itertools
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils import status_page, status_report
from support.statuses import HOSTILE, broken, healthy, hostile


def page(results: dict[str, Any]) -> str:
    return status_page.page(status_report.document(results, [("web1",)], "shop"))


class Reader(HTMLParser):
    """The page's elements, texts and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("results", [healthy(), broken(), hostile(), {}], ids=["healthy", "broken", "hostile", "none"])
def test_it_loads_nothing_runs_nothing_and_has_headings_in_order(results):
    read = Reader(page(results))
    tags = [tag for tag, _ in read.elements]
    assert not {"script", "img", "iframe", "object", "form"} & set(tags)
    assert not [name for _, given in read.elements for name in given if name.startswith("on")]
    links = [given[name] for _, given in read.elements for name in ("src", "href", "xlink:href") if name in given]
    assert links == ["data:,"]
    assert "url(" not in page(results)
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [given["id"] for _, given in read.elements if "id" in given]
    assert len(ids) == len(set(ids))
    named = {given["aria-labelledby"] for _, given in read.elements if "aria-labelledby" in given}
    assert named <= set(ids)
    assert all(given.get("aria-label") for tag, given in read.elements if tag == "svg")


def test_names_that_are_markup_are_shown_as_they_are():
    text = page(hostile())
    assert "<script" not in text
    assert HOSTILE in "".join(Reader(text).texts)


def test_problems_come_first_with_the_commands_to_type():
    text = page(broken())
    assert "<title>16 problems" in text
    assert text.index('id="problems"') < text.index('id="topology"')
    assert "<code>supervisorctl start shop-scheduler-2</code>" in text
    assert "Restart it: <code>supervisorctl restart shop-worker-mail-1</code>" in text
    assert 'id="problems"' not in page(healthy())
    assert "<title>OK" in page(healthy())


def test_a_chart_has_a_round_top_gaps_where_nothing_is_known_and_words_for_who_cannot_see_it():
    drawn = status_page.chart("Waiting", [0, 60, 120, None, None, 30, None, 5], "", [0.5])
    assert drawn["top"] == "200"
    assert len(drawn["lines"]) == 3
    assert drawn["lines"][0] == "M0,100 L85.7,70 L171.4,40"
    assert drawn["marks"] == [300.0]
    assert drawn["label"] == "Waiting over the last hour: now 5, at most 120; 1 deploy"


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (0.03, 0.1), (1, 1), (1.1, 2), (9, 10), (504, 600), (100_000, 100_000)]
)
def test_the_top_of_a_chart(highest, top):
    assert status_page.nice(highest) == pytest.approx(top)


def test_hosts_add_what_each_has_a_part_of_and_agree_on_the_rest():
    one = {"every": 30, "first": 10, "queues": {"shop": {"ready": [5, 6], "rate": [1.0, 2.0]}}}
    two = {"every": 30, "first": 11, "queues": {"shop": {"ready": [7, 8], "rate": [0.5, None]}}}
    seen = status_report.hour([one, two], 0.0)
    [shop] = seen["queues"]
    assert (shop["ready"][-3:], shop["rate"][-3:]) == ([5, 7, 8], [1.0, 2.5, None])
    assert set(shop["ready"][:-3]) == {None}
    assert (seen["from"], seen["count"], len(shop["ready"])) == ("1969-12-31T23:06:00Z", 121, 121)
    assert status_report.hour([], 0.0) is None


def test_an_hour_that_a_silent_watchdog_has_left_does_not_end_now():
    old = {"every": 30, "first": 10, "queues": {"shop": {"ready": [5] * 60, "rate": [1.0] * 60}}}
    [shop] = status_report.hour([old], 30.0 * 100)["queues"]
    assert shop["ready"][-30:] == [None] * 30
    drawn = status_page.chart("Waiting", shop["ready"], "", [])
    assert drawn["label"] == "Waiting over the last hour: now –, at most 5"


def test_a_deploy_of_several_hosts_is_one_entry():
    [entry] = status_page.deploys(status_report.document(healthy(), [], "shop"))
    assert entry["hosts"] == ["web1", "work2"]


@pytest.mark.parametrize(("seconds", "words"), [(None, "–"), (5.4, "5 s"), (75, "1 min 15 s"), (90061, "1 d 1 h")])
def test_spans(seconds, words):
    assert status_page.span(seconds) == words
