"""The page at /, as people use it: in headless Chromium, by mouse and by keyboard alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder
from served import served
from tiny import TEXTS, save_backbone

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

LONG = "the cat sat on the mat " * 40


@pytest.fixture(scope="module")
def url(tiny_bert: Path, tiny_classifier: Path, tmp_path_factory: Any) -> Iterator[str]:
    base = save_backbone(tmp_path_factory.mktemp("base"), seed=1)
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier, "embedder_baseline": base}
    documents = {f"d{at}": text for at, text in enumerate(TEXTS)}
    with served(folders, keys=["key"], documents=documents) as (found, _):
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """An English reader's page; whatever it complains of, or loads from elsewhere, is an error."""
    context = browser.new_context(locale="en-US")
    found = context.new_page()
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    loaded: list[str] = []
    found.on("request", lambda request: loaded.append(request.url))
    found.goto(url)
    yield found
    context.close()
    assert wrong == []
    assert all(address.startswith((url, "data:")) for address in loaded)


def give_key(page: Any) -> None:
    page.click("summary")
    page.fill("#key", "key")


def test_documents_are_ranked_side_by_side(page: Any, tiny_bert: Path) -> None:
    give_key(page)
    page.fill("#query", TEXTS[0])
    page.fill("#documents", "\n\n".join([*TEXTS[:5], LONG, "<b>x</b>"]))
    page.click("#rank")
    page.wait_for_selector("#columns section")
    titles = page.locator("#columns h2").all_inner_texts()
    assert titles == ["Embedder, base", "Embedder, fine-tuned", "Reranker"]
    assert page.inner_text("#status") == "7 documents, ranked 3 times."
    model = Embedder.from_pretrained(tiny_bert)
    texts = [*TEXTS[:5], LONG.strip(), "<b>x</b>"]
    scores = (model.encode([TEXTS[0]]) @ model.encode(texts).T)[0].tolist()
    wanted = sorted(scores, reverse=True)
    tuned = page.locator("#columns section").nth(1)
    shown = tuned.locator(".score").all_inner_texts()
    assert [float(text) for text in shown] == pytest.approx(wanted, abs=1e-3)
    order = sorted(range(7), key=lambda at: -scores[at])
    assert tuned.locator(".passage").all_inner_texts() == [texts[at] for at in order]
    widths = [
        float(bar.get_attribute("style").removeprefix("width: ").removesuffix("%;"))
        for bar in tuned.locator(".bar > div").all()
    ]
    assert widths == pytest.approx([100 * max(0, value) for value in wanted], abs=0.1)
    for column in page.locator("#columns section").all():
        cut = column.locator("li", has=page.locator(".cut"))
        assert cut.locator(".passage").all_inner_texts() == [LONG.strip()]
    assert page.locator("#columns b").count() == 0  # texts are no markup


def test_the_corpus_is_searched_if_no_documents_are_given(page: Any) -> None:
    give_key(page)
    page.fill("#query", "a cat")
    page.press("#query", "Enter")
    page.wait_for_selector("#columns section")
    assert page.inner_text("#columns h2") == "Search"
    assert page.locator("#columns li").count() == 10
    assert "embedder's rank: " in page.inner_text("#columns li:first-child .notes")


def test_errors_are_said(page: Any) -> None:
    page.fill("#query", "a cat")
    page.click("#rank")
    page.wait_for_selector("#status.error")
    assert "API key" in page.inner_text("#status")
    page.fill("#query", "  ")
    page.click("#rank")
    sync_api.expect(page.locator("#status")).to_have_text("Give a query.")


def test_in_chinese_and_by_keyboard_alone(browser: Any, url: str) -> None:
    context = browser.new_context(locale="zh-CN", extra_http_headers={"X-API-Key": "key"})
    page = context.new_page()
    page.goto(url)
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert page.inner_text("#rank") == "排序"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert [name for name in reached if name in ("query", "documents", "rank", "example")] == [
        "query", "documents", "rank", "example",
    ]  # fmt: skip
    page.focus("#example")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "query"
    page.focus("#documents")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#columns section")
    titles = ["向量模型（微调前）", "向量模型（微调后）", "重排模型"]
    assert page.locator("#columns h2").all_inner_texts() == titles
    page.click("[data-language=en]")  # what stands there is said anew
    assert page.locator("#columns h2").first.inner_text() == "Embedder, base"
    assert page.get_attribute("html", "lang") == "en"
    context.close()


def test_everything_has_a_name_for_screen_readers(page: Any) -> None:
    give_key(page)
    page.click("#example")
    page.click("#rank")
    page.wait_for_selector("#columns section")
    for role, name in (
        ("textbox", "Query"),
        ("textbox", "Documents"),
        ("button", "Rank"),
        ("button", "Example"),
        ("group", "Language"),
        ("region", "Reranker"),
        ("status", None),
    ):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, textarea, button")].filter(
            (element) => !(element.labels?.length || element.textContent.trim())
        ).length"""
    )
    assert unnamed == 0
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_the_page_of_the_api_sends_its_examples(browser: Any, url: str) -> None:
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.goto(f"{url}/docs")
    page.wait_for_selector("#status.error")  # openapi.json needs the key
    page.fill("#key", "key")
    page.press("#key", "Enter")
    page.wait_for_selector("details.route")
    route = page.locator("details.route", has_text="POST /v2/rerank")
    route.locator("summary").click()
    route.locator("button").click()
    sync_api.expect(route.locator("pre")).to_contain_text("input_tokens")
    assert '"relevance_score"' in route.locator("pre").inner_text()
    context.close()
