"""Figures that show what was measured, and can be read in both languages."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from evaluation.report import curves, fonts
from evaluation.report.curves import draw_run, series
from evaluation.report.drawing import DARK, Drawing, draw, figure_words
from evaluation.report.figures import FIGURES, draw_bars, draw_figures, draw_scores
from evaluation.report.wording import WORDS, Language
from evaluation.results import Results
from measured import LOG, RUN_FIGURES
from measured import results as content


def results(**changes: Any) -> Results:
    return Results.from_json(content(**changes))


CHINESE = re.compile("[\u4e00-\u9fff]")
LANGUAGES: list[Language] = ["en", "zh"]


def test_series_are_what_was_logged() -> None:
    steps, values = series(LOG, "eval_ndcg@10")
    assert steps.tolist() == [20, 40]
    assert values.tolist() == [0.625, 0.875]


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Drawing]]:
    """All figures in both languages. Shared: do not change them."""
    return {language: draw_figures(results(), LOG, language) for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_is_drawn_and_described(
    language: Language, drawn: dict[str, list[Drawing]]
) -> None:
    drawings = {drawing.name: drawing for drawing in drawn[language]}
    assert list(drawings) == ["comparison", "scores", *RUN_FIGURES] == list(FIGURES)
    for drawing in drawings.values():
        picture = Image.open(io.BytesIO(drawing.png))
        assert picture.format == "PNG"
        assert picture.width == 960  # 4.8 inches
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
        assert bool(CHINESE.search(drawing.alt)) == (language == "zh")
    said = {name: drawing.alt for name, drawing in drawings.items()}
    assert all(value in said["comparison"] for value in ("0.748", "0.788", "map@10"))
    assert all(value in said["loss"] for value in ("2.5", "1.5", "2.25", "1.25"))
    assert "ndcg@10" in said["evaluation_metrics"]
    assert "runtime" not in said["evaluation_metrics"]


def test_only_what_was_logged_or_measured_is_drawn() -> None:
    assert draw_figures(None, None, "en") == []
    assert [d.name for d in draw_run(LOG[:1], "en")] == RUN_FIGURES[:3]
    assert [d.name for d in draw_figures(results(scores={}), [], "en")] == ["comparison"]
    one_sided = results(scores={"fine-tuned": {"relevant": [0.5], "irrelevant": []}})
    drawing = draw_scores(one_sided, "en")
    assert drawing is not None
    assert "median 0.500 of relevant, – of irrelevant" in drawing.alt


def test_bars_stand_where_the_values_are() -> None:
    """The ends of the bars, read from the picture, are in proportion to the values."""
    values = {"base": 0.25, "fine-tuned": 0.75, "difference": 0.5, "low": 0.4, "high": 0.6}
    found = results(metrics={"ndcg@10": content()["metrics"]["ndcg@10"] | values})
    picture = np.asarray(Image.open(io.BytesIO(draw_bars(found, "en").png)).convert("RGB"))
    half = picture[: picture.shape[0] // 2]  # without the legend

    def width(color: str) -> int:
        rgb = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        return int((half == rgb).all(axis=-1).sum(axis=1).max())

    # A whisker stands in the longer one.
    assert width("#0969da") / width("#9aa4af") == pytest.approx(3, rel=0.05)


def losses(values: Iterable[float]) -> list[dict[str, float]]:
    return [{"step": step, "loss": value} for step, value in enumerate(values, start=1)]


def curves_of(log: list[dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> list[Line2D]:
    """The curves of the first figure of a run."""
    figures: list[Figure] = []

    def kept(name: str, alt: str, plot: Callable[[Figure], None]) -> Drawing:
        figures.append(Figure())
        plot(figures[-1])
        return draw(name, alt, plot)

    with monkeypatch.context() as patch:
        patch.setattr(curves, "draw", kept)
        draw_run(log, "en")
    return list(figures[0].axes[0].lines)


def test_a_long_curve_fades_behind_its_running_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=200)
    faint, mean = curves_of(losses(noise), monkeypatch)
    assert np.array_equal(faint.get_ydata(), noise)
    assert faint.get_alpha() == 0.35 and mean.get_alpha() is None
    assert mean.get_label() == WORDS["en"]["running_mean"]
    # Over a twentieth of the values, each mean in the middle of its window.
    wanted = [noise[at : at + 10].mean() for at in range(191)]
    assert np.asarray(mean.get_ydata(), dtype=float) == pytest.approx(wanted)
    assert np.array_equal(mean.get_xdata(), np.arange(6, 197))
    (only,) = curves_of(losses(noise[: curves.MANY]), monkeypatch)
    assert only.get_alpha() is None and only.get_label() == WORDS["en"]["training_loss"]


def test_a_diverged_run_is_drawn() -> None:
    for value in (float("nan"), float("inf")):
        assert [d.name for d in draw_run(losses([1.0] * 5 + [value] * 95), "en")] == ["loss"]
    assert draw_run(losses([float("nan")]), "en")


def test_the_same_figure_gives_the_same_file(drawn: dict[str, list[Drawing]]) -> None:
    assert draw_bars(results(), "zh") == drawn["zh"][0]
    assert draw_bars(results(), "en") == drawn["en"][0] != drawn["zh"][0]


def test_a_dark_figure_has_no_colour_of_the_light_one(drawn: dict[str, list[Drawing]]) -> None:
    for drawing in drawn["en"]:
        assert "#1f2328" in drawing.svg
        assert not [color for color in DARK if color in drawing.dark_svg]
        ElementTree.fromstring(drawing.dark_svg)


def test_a_name_that_looks_like_a_formula_is_a_name() -> None:
    for name in ("outputs/$\\frac{$", "outputs/a$b", "_hidden/_x"):
        assert draw_bars(results(models={"fine-tuned": name, "base": "bm25"}), "en").png


# Chinese in figures. matplotlib warns of a character that no font has, and warnings are errors.


@pytest.fixture
def no_chinese_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine that has none."""
    monkeypatch.setattr(fonts, "chinese_font_files", lambda: iter(()))
    caches = (fonts.font_families, fonts.warn_of_missing_font)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_chinese_figures_are_in_chinese() -> None:
    assert fonts.font_families()[0].endswith(" SC")  # the extra "fonts" is part of "dev"
    assert figure_words("zh") is WORDS["zh"]
    assert fonts.can_draw("骨直角 数据：+0.5，“引号” é ß ≤ −")
    assert not fonts.can_draw("🦊")


def test_a_chinese_model_name_stands_in_an_english_figure() -> None:
    named = draw_bars(results(), "en").svg
    other = results(
        models={"fine-tuned": "outputs/商品搜索", "base": "package://some_package/model"}
    )
    assert named != draw_bars(other, "en").svg


def test_without_a_font_there_is_english_and_no_empty_box(
    no_chinese_font: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert fonts.font_families() == ["DejaVu Sans"]
    drawings = [draw_bars(results(), language) for language in LANGUAGES]
    assert drawings[0].svg == drawings[1].svg
    assert "基础" in drawings[1].alt  # the page itself stays Chinese
    assert caplog.text.count("-e '.[fonts]'") == 1

    # What would be seen otherwise:
    def plot(figure: Figure) -> None:
        figure.suptitle("图")

    with pytest.warns(UserWarning, match="Glyph .* missing"):
        draw("x", "", plot)
