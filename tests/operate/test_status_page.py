"""The page of the status as a person sees it: in a real browser, light and dark, wide and on a phone."""

import itertools
from pathlib import Path

import pytest
from ansible_collections.celery_ops.kit.plugins.plugin_utils import status_page, status_report
from support.control import play
from support.statuses import broken, healthy, hostile

MADE_UP = {"healthy": healthy, "broken": broken, "hostile": hostile}
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
# Of every text the contrast with the nearest background that is not transparent (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let one = element; one; one = one.parentElement) {
      const found = channels(getComputedStyle(one).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""
LEVELS = "() => [...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))"
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def pages(host, tmp_path_factory) -> dict[str, Path]:
    """The host's own page and made-up ones, by name."""
    directory = tmp_path_factory.mktemp("pages")
    files = {name: directory / f"{name}.html" for name in ("real", *MADE_UP)}
    done = play("status", status_format="html", status_output=str(files["real"]), status_exit=False)
    assert done.rc == 0, done.text
    assert f"The status is in {files['real']}" in done.words
    for name, made in MADE_UP.items():
        files[name].write_text(status_page.page(status_report.document(made(), [("web1",)], "shop")))
    return files


@pytest.mark.parametrize("name", ["real", *MADE_UP])
def test_it_can_be_read_by_everybody_and_loads_nothing(name, pages, browser, screenshots):
    for width, scheme in VIEWS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page, requested, troubles = context.new_page(), [], []
        page.on("request", lambda request, seen=requested: seen.append(request.url))
        page.on("console", lambda said, seen=troubles: seen.append(said.text))
        page.on("dialog", lambda dialog, seen=troubles: seen.append(dialog.message) or dialog.dismiss())
        page.goto(pages[name].as_uri())
        page.screenshot(path=screenshots / f"status-{name}-{width}-{scheme}.png", full_page=True)
        assert [url for url in requested if not url.startswith("data:")] == [pages[name].as_uri()]
        assert troubles == []
        assert page.title().startswith(("OK", "1 problem", "4 problems", "16 problems"))
        assert page.evaluate(OVERFLOW) == 0, f"{width} px are not enough"
        levels = page.evaluate(LEVELS)
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 30
        assert [one for one in contrasts if one[0] < 4.5] == [], scheme
        context.close()


def test_the_hosts_page_shows_what_runs_there(host, pages, browser):
    page = browser.new_page()
    page.goto(pages["real"].as_uri())
    worker = host.program("worker-default")
    assert page.get_by_role("row").filter(has_text=worker.name).filter(has_text="RUNNING").count() == 1
    assert page.get_by_role("heading", name="petct.dead").count() == 1
    assert page.get_by_role("img", name="Waiting over the last hour").count() >= 1
    page.close()
