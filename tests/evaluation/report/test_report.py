"""The report: one page that needs nothing else, in both languages, whose texts are harmless."""

import base64
import json
import re
import string
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from evaluation.report.figures import FIGURES
from evaluation.report.report import verdict, write_report
from evaluation.report.wording import WORDS, Language
from evaluation.results import Results
from measured import LOG, RUN_FIGURES, alone, pairs, results

CHINESE = re.compile("[\u4e00-\u9fff]")
EN, ZH = WORDS["en"], WORDS["zh"]


class Page(HTMLParser):
    """The elements of a page, its texts, and what it refers to."""

    VOID = ("meta", "img", "source", "wbr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.text, self.style = "", ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.text += data
        if self.open and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += f" {data}" if self.open[-1] == "small" else data

    def values(self, tag: str, name: str) -> list[str]:
        return [value for of, at, value in self.attributes if (of, at) == (tag, name)]


SHORT = [{"step": 1, "loss": 1.0}]  # one figure only


def report(
    folder: Path, found: dict[str, Any] | None, language: Language = "en", log: Any = SHORT
) -> Page:
    path = write_report(folder, None if found is None else Results.from_json(found), log, language)
    assert path == folder / "report.html"
    return Page(path)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """Figures of an earlier report do not stay beside it, and others' files do."""
    figures = tmp_path / "figures"
    figures.mkdir()
    for name in (*FIGURES, "mine"):
        (figures / f"{name}.png").touch()
    report(tmp_path, None)
    assert sorted(path.name for path in figures.iterdir()) == ["loss.png", "mine.png"]
    (figures / "mine.png").unlink()
    page = report(tmp_path, results(), "zh", LOG)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "url(" not in page.style and "@import" not in page.style
    referring = {"src", "srcset", "href", "action", "data", "poster", "background"}
    addresses = [value for _, name, value in page.attributes if name in referring]
    assert len(addresses) == 12  # six figures, for day and for night
    for address in addresses:
        kind, _, content = address.partition("base64,")
        assert kind == "data:image/svg+xml;"
        ElementTree.fromstring(base64.b64decode(content))
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(page.values("img", "alt")) and len(page.values("img", "alt")) == 6
    assert page.values("html", "lang") == ["zh-CN"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        f"{name}.png" for name in ("comparison", "scores", *RUN_FIGURES)
    )


def test_texts_are_texts_and_never_code(tmp_path: Path) -> None:
    found = results(data="<img src=x onerror=alert(1)>", scores={})
    found["models"]["base"] = '"><script>1</script>'
    found["metrics"] = {'"><script>': found["metrics"]["ndcg@10"]}
    found["main_metric"] = '"><script>'
    page = report(tmp_path, found)
    assert "script" not in page.tags and len(page.values("img", "src")) == 2
    for text in ("<script>alert('x')</script>", "<b>bold</b> & more", found["data"]):
        assert text in page.text
    assert '"><script>1</script>' in page.text


def test_the_table_holds_what_was_measured(tmp_path: Path) -> None:
    page = report(tmp_path, results(scores={}))
    assert page.values("html", "lang") == ["en"]
    assert page.rows[1:] == [
        ["ndcg@10", "0.748", "0.788", "+0.040 +0.026 … +0.053", "< 0.001", "312", "120", "1,768"],
        ["map@10", "0.699", "0.694", "−0.005 −0.024 … +0.012", "0.410", "312", "120", "1,768"],
    ]
    assert EN["better"] in page.text
    assert "312 queries gained, 120 lost, 1,768 stayed as they were." in page.text
    assert "2026-11-24 10:00 UTC" in page.text
    for text in ("q1", "0.000 → 1.000", "感冒发烧吃什么药？", "1.000 → 0.250", "多喝水。" * 200):
        assert text in page.text


@pytest.mark.parametrize(
    ("low", "high", "headline"),
    [(0.01, 0.05, "better"), (-0.05, -0.01, "worse"), (-0.01, 0.05, "unclear"), (0, 0, "unclear")],
)
def test_the_headline_goes_by_the_interval(low: float, high: float, headline: str) -> None:
    found = results()
    found["metrics"]["ndcg@10"] |= {"low": low, "high": high}
    for words in WORDS.values():
        said = verdict(Results.from_json(found), words)
        assert said["headline"] == words[headline]
        assert "0.748" in said["sentences"][0] and "0.788" in said["sentences"][0]


def test_a_model_alone_judged_pairs_and_a_first_stage(tmp_path: Path) -> None:
    page = report(tmp_path, alone())
    assert page.rows == [["metric", "fine-tuned"], ["ndcg@10", "0.788"], ["map@10", "0.694"]]
    assert EN["gained"] not in page.text
    page = report(tmp_path, pairs(), "zh")
    assert page.rows[1] == ["spearman", "0.748", "0.788", "+0.040 +0.026 … +0.053", "< 0.001"]
    assert "1,500" in page.text and ZH["how_to_read_pairs"] in page.text
    first = results(scores={}, models={"fine-tuned": "outputs/r", "base": "bm25"})
    first["metrics"]["ndcg@10"]["base"] = 0.5
    both = results(kind="reranker", task="reranking", scores={}, first_stage=first)
    page = report(tmp_path, both)
    assert [row[:2] for row in page.rows if row[0] == "ndcg@10"] == [
        ["ndcg@10", "0.748"],
        ["ndcg@10", "0.500"],
    ]
    assert "the first stage, bm25" in page.text


def test_the_page_says_how_the_model_was_trained(tmp_path: Path) -> None:
    recipe = {
        "objective": "contrastive",
        "loss_args": {"temperature": 0.02},
        "model_name_or_path": "BAAI/bge-base-zh-v1.5",
        "train_file": ["data/训练.jsonl", "data/more.jsonl"],
        "eval_file": None,
        "max_steps": -1,
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 32,
        "learning_rate": 2e-5,
    }
    run = tmp_path / "run"
    (run / "checkpoint-4").mkdir(parents=True)
    (run / "train_config.json").write_text(json.dumps(recipe), encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder, found in (
        (run, None),
        (elsewhere, results(scores={}, models={"fine-tuned": str(run)})),
        (elsewhere, results(scores={}, models={"fine-tuned": str(run / "checkpoint-4")})),
    ):
        text = report(folder, found).text
        for value in ('contrastive {"temperature": 0.02}', "data/训练.jsonl, data/more.jsonl"):
            assert value in text
        assert "2 epochs" in text and "2e-05" in text and "BAAI/bge-base-zh-v1.5" in text
    assert EN["training"] not in report(elsewhere, results(scores={})).text
    text = report(run, None, "zh").text
    assert "2 轮" in text and ZH["title_run"] in text and ZH["what"] not in text


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to report"):
        write_report(tmp_path, None, [])
    assert not list(tmp_path.iterdir())


def test_both_languages_say_the_same() -> None:
    for name, text in EN.items():
        names = [
            sorted(field for _, field, _, _ in string.Formatter().parse(words[name]) if field)
            for words in (EN, ZH)
        ]
        assert names[0] == names[1], name
        assert not CHINESE.search(text)
    # Neutral: the language's code, a symbol, and patterns of names and values.
    neutral = {"html_language", "p_value", "bar", "alt", "joint"}
    assert {name for name, text in ZH.items() if not CHINESE.search(text)} == neutral
