"""What a notebook's page does in a real browser."""

import json
import shutil

import pytest
from tones import tones

from thanosql.frontends import dataframes

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed"
)

pytestmark = pytest.mark.thorough(seconds=1)

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome", "chrome")
TEXT = "abcdefghij" * 3  # about four seconds of tones
STATE = """rows => [...document.querySelectorAll('audio')].map(
    audio => [Math.floor(audio.currentTime), audio.paused])"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=found,
            args=["--no-sandbox"],  # which root must do without
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, connection):
    """Return a page with two recordings and their words, as a notebook shows them."""
    words = [
        {"word": "zero", "start": 0.25, "end": 0.6, "confidence": 0.99},
        {"word": "<i>one</i>", "start": 1.25, "end": 1.6, "confidence": 0.5},
        {"word": "two", "start": 2.25, "end": 2.6, "confidence": 0.05},
        {"word": "<img src=x onerror='window.broken=1'>", "start": 3, "end": 3.5},
        {"word": "three", "start": None, "end": None, "confidence": None},
    ]
    connection.execute("CREATE TABLE heard (audio, predicted, words)")
    connection.executemany(
        "INSERT INTO heard VALUES (?, 'zero one two', ?)",
        [(tones(TEXT, seed=seed), json.dumps(words)) for seed in range(2)],
    )
    frame = dataframes.frame(connection.execute("SELECT * FROM heard"))
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_content(frame._repr_html_())
    yield page
    assert all(url.startswith("data:") for url in asked)
    page.close()


def test_a_click_on_a_word_plays_its_own_row_from_there(page):
    assert page.evaluate(STATE) == [[0, True], [0, True]]
    page.get_by_role("button", name="two").nth(1).click()
    page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 2.3")
    assert page.evaluate(STATE) == [[0, True], [2, False]]
    page.get_by_role("button", name="zero").first.click()
    page.wait_for_function("document.querySelectorAll('audio')[0].currentTime > 0.3")
    assert page.evaluate(STATE)[0] == [0, False]


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_key_on_a_word_plays_from_there(page, key):
    page.get_by_role("button", name="zero").first.focus()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.inner_text() == "<i>one</i>"
    page.keyboard.press(key)
    page.wait_for_function("document.querySelectorAll('audio')[0].currentTime > 1.3")
    assert page.evaluate(STATE) == [[1, False], [0, True]]


def test_a_word_is_text_and_says_when_it_is_said(page):
    page.wait_for_function("document.querySelectorAll('audio')[1].readyState > 0")
    assert page.evaluate("window.broken") is None
    assert page.locator("td img, td i").count() == 0
    word = page.get_by_role("button", name="<i>one</i>").first
    assert word.get_attribute("title") == "1.25 to 1.60 s, confidence 0.50"
    assert page.locator("s").first.inner_text() == "three"
    assert page.get_by_role("button", name="three").count() == 0


def test_the_less_sure_a_word_the_darker(page):
    shades = page.evaluate(
        """() => [...document.querySelectorAll('tr:nth-child(1) [data-start]')].map(
            word => getComputedStyle(word).backgroundColor)"""
    )
    strengths = [float(shade.split(",")[-1].strip(" )")) for shade in shades]
    assert strengths[0] < strengths[1] < strengths[2]
    assert strengths[3] == 0  # nothing is known of it
