"""The page as a person sees it: a real browser, reaching the host from outside."""

from __future__ import annotations

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect

PLANES = ("axial", "coronal", "sagittal")
# What Chromium says of any page that it gets by plain HTTP from an address other than localhost.
PLAIN_HTTP = "Cross-Origin-Opener-Policy header has been ignored"


@pytest.fixture
def page(browser):
    """A fresh page; `troubles` lists what went wrong in it."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))

    def note(said: ConsoleMessage) -> None:
        if said.type == "error" and PLAIN_HTTP not in said.text:
            page.troubles.append(said.text)

    page.on("console", note)
    yield page
    page.close()


def picture(page: Page, plane: str) -> str:
    """Returns the drawn pixels of a plane."""
    return page.locator(f".{plane} canvas").evaluate("canvas => canvas.toDataURL()")


def test_slices_are_shown_and_follow_their_sliders(host, page, screenshots):
    assert page.goto(f"{host.url}/show/?userID=demo").status in (200, 202)
    expect(page.locator(".axial canvas")).to_be_visible(timeout=20_000)
    page.screenshot(path=screenshots / f"{host.name}-demo.png", full_page=True)
    shown = {plane: picture(page, plane) for plane in PLANES}
    assert len(set(shown.values())) == len(PLANES)
    for plane in PLANES:
        slider = page.locator(f"#{plane}")
        before = int(slider.input_value())
        slider.focus()
        slider.press("PageUp")
        assert int(slider.input_value()) != before
        assert picture(page, plane) != shown[plane], f"the {plane} picture stayed the same"
    page.screenshot(path=screenshots / f"{host.name}-demo-moved.png", full_page=True)
    assert page.troubles == []


def test_an_unknown_user_is_a_page_that_says_so(host, page, screenshots):
    assert page.goto(f"{host.url}/show/?userID=nobody").status == 404
    page.screenshot(path=screenshots / f"{host.name}-unknown.png")
    expect(page.locator("h1")).to_contain_text("nobody")
