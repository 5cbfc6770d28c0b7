"""The style of figures, and a drawn figure: a PNG file, and SVGs for light and dark pages."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from evaluation.report.fonts import can_draw, font_families, warn_of_missing_font
from evaluation.report.wording import WORDS, Language, Words

# Colours on white, and on a dark page. The colour-blind can tell the series apart.
INK, MUTED, GRID = "#1f2328", "#59636e", "#dde1e6"
BLUE, ORANGE, GREY = "#0969da", "#d1570a", "#9aa4af"
GREEN, PURPLE, PINK, OCHRE = "#1a7f37", "#8250df", "#bf3989", "#9a6700"
DARK = {
    INK: "#e6edf3",
    MUTED: "#9aa4ae",
    GRID: "#30363d",
    BLUE: "#539bf5",
    ORANGE: "#f0883e",
    GREY: "#6b7683",
    GREEN: "#46b95f",
    PURPLE: "#b083f0",
    PINK: "#e275ad",
    OCHRE: "#d29922",
}
SERIES = (BLUE, ORANGE, GREEN, PURPLE, PINK, OCHRE)

WIDTH = 4.8  # inches; narrow enough that a phone shows the 9.5 points in a size to read
STYLE: dict[RcKeyType, Any] = {
    "axes.edgecolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.titlesize": 11.5,
    "figure.constrained_layout.h_pad": 0.08,  # inches
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # looks the same on every machine
    "svg.hashsalt": "tandem",  # the same figure gives the same file
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


class Drawing(NamedTuple):
    """A drawn figure."""

    name: str  # of its file, without ".png"
    alt: str  # what it shows, in words, in the language of the page
    caption: str  # how to read it, or ""
    png: bytes  # on white
    svg: str  # for a light page

    @property
    def dark_svg(self) -> str:
        """The SVG for a dark page."""
        svg = self.svg
        for light, dark in DARK.items():
            svg = svg.replace(light, dark)
        return svg

    def write(self, folder: Path) -> None:
        """Write the PNG file."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.png").write_bytes(self.png)


def figure_words(language: Language) -> Words:
    """Words that the fonts here can draw: Chinese, unless there is no font that has it."""
    words = WORDS[language]
    if all(can_draw(text) for text in words.values()):
        return words
    warn_of_missing_font()
    return WORDS["en"]


def draw(
    name: str,
    alt: str,
    plot: Callable[[Figure], None],
    *,
    height: float = 3.0,
    caption: str = "",
) -> Drawing:
    """Let ``plot`` fill an empty figure, ``height`` inches high, and keep it as PNG and SVG."""
    with rc_context(STYLE | {"font.family": font_families()}):
        figure = Figure(figsize=(WIDTH, height))
        plot(figure)
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", facecolor="white")
        figure.set_layout_engine("none")  # as laid out for the first
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Drawing(name, alt, caption, png.getvalue(), svg.getvalue())


def describe(title: str, said: Sequence[str], words: Words) -> str:
    """The alternative text of a figure: its title, and what it shows."""
    return words["alt"].format(title=title, said=words["joint"].join(said))


def horizontal_grid(axes: Axes) -> None:
    """Keep only horizontal grid lines: heights are read off."""
    axes.grid(visible=False, axis="x")
    axes.tick_params(length=0)
