"""Find a font with Chinese characters for figures; without one, figures are in English."""

import logging
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font

logger = logging.getLogger(__name__)

LATIN = "DejaVu Sans"  # matplotlib brings it
# The extra "fonts": Noto Sans CJK, unchanged, under the SIL Open Font License.
PACKAGE = "noto_cjk_sans_otc"
# Regular weights with simplified Chinese characters, by the names of their files.
KNOWN = (
    "NotoSansCJK-Regular",
    "NotoSansCJKsc-Regular",
    "NotoSansSC-Regular",
    "SourceHanSansSC-Regular",
    "SourceHanSansCN-Regular",
    "PingFang",
    "msyh",
    "wqy-microhei",
    "wqy-zenhei",
    "DroidSansFallbackFull",
    "simhei",
)


@cache
def font_families() -> list[str]:
    """Names of the fonts that figures are set in, the first one first."""
    path = next(chinese_font_files(), None)
    if path is None:
        return [LATIN]
    fontManager.addfont(path)
    # A collection holds one font for each region; their characters differ in shape.
    names = [font.name for font in fontManager.ttflist if font.fname == str(path)]
    return [next((name for name in names if name.endswith(" SC")), names[0]), LATIN]


def chinese_font_files() -> Iterator[Path]:
    """Yield font files with Chinese characters: the package's, then those of this machine."""
    spec = find_spec(PACKAGE)
    if spec is not None and spec.submodule_search_locations:
        yield from Path(spec.submodule_search_locations[0]).glob("*.ttc")
    installed = {Path(file).stem: Path(file) for file in findSystemFonts()}
    yield from (installed[name] for name in KNOWN if name in installed)


def can_draw(text: str) -> bool:
    """Whether the fonts have every character of ``text``."""
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in font_families()]
    return all(any(font.get_char_index(ord(letter)) for font in fonts) for letter in text)


@cache
def warn_of_missing_font() -> None:
    """Warn once that figures are in English for want of a font, and how to get one."""
    logger.warning(
        "figures are in English: no font with Chinese characters was found; "
        "pip install -c constraints.txt -e '.[fonts]', or install one, such as fonts-noto-cjk"
    )
