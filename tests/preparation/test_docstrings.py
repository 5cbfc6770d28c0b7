"""Source files to docstring pairs: exact text, nothing executed, no duplicates, no leak."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from preparation.docstrings.corpus import deduplicate, hard_negatives, split_by_topic
from preparation.docstrings.pairs import (
    DocstringPair,
    docstrings,
    locate,
    read_file,
    source_files,
    topic_of,
)
from preparation.docstrings.text import (
    clean,
    document_fault,
    query_fault,
    shortened,
    split_summary,
)
from preparation.duplicates.near_duplicates import similar_pairs

SOURCE = '''
"""Tools for kites."""
raise SystemExit("a source file must never be executed")

def fly(wind, line):
    """Let the :class:`~kites.Kite` climb against the wind. The line is paid out slowly.

    .. versionadded:: 1.2
       Before that, kites fell down.

    Parameters
    ----------
    wind : float
        Speed of the ``wind`` in metres per second, at the height of the kite [1]_.
    line : str
        Name of the line which holds the kite while it is in the air.

    See Also
    --------
    land : The other way round.

    Examples
    --------
    >>> fly(3.0, "blue")
    """

class Kite:
    def fold(self):
        """Fold(wings) -> bag

        Fold the wings and pack the kite into its bag.

        Args:
            wings (`int`): How many wings there are to fold; two wings in most cases, but a box
                kite has four of them, and some have none at all.
        """

    def _secret(self):
        """Measure the tension of the line without telling. """ + """More text here."""

if True:
    def short(self):
        """Return the tail."""
'''


def test_exact_pairs(tmp_path: Path) -> None:
    path = tmp_path / "core.py"
    path.write_text(SOURCE, encoding="utf-8")
    dropped: Counter[str] = Counter()
    fly, fold = read_file("kites", "kites.core", path, dropped)
    assert fly == DocstringPair(
        name="kites.core.fly",
        package="kites",
        topic="kites.core",
        query="Let the Kite climb against the wind.",
        document="The line is paid out slowly.\n\nParameters:\nwind : float\n"
        "Speed of the wind in metres per second, at the height of the kite.\nline : str\n"
        "Name of the line which holds the kite while it is in the air.",
        shortened=False,
    )
    assert (fold.name, fold.query) == (
        "kites.core.Kite.fold",
        "Fold the wings and pack the kite into its bag.",
    )
    assert fold.document.startswith("Args:\nwings (int): How many wings there are to fold;")
    assert dropped == {"rest too short": 2}


def test_docstrings_are_found_in_order_and_not_inside_functions() -> None:
    source = (
        b'"""m"""\nclass A:\n "a"\n def f(self):\n  "f"\n  def g(): "g"\n'
        b'try:\n async def h(): "h"\nexcept E: pass'
    )
    assert list(docstrings(source)) == [("", "m"), ("A", "a"), ("A.f", "f"), ("h", "h")]


@pytest.mark.parametrize(
    "content",
    [b"def broken(:\n", b"\xff\xfe\x00", b"# coding: latin-9000\n", b"x = '\x00'"],
)
def test_broken_files_are_counted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    dropped: Counter[str] = Counter()
    assert read_file("p", "p.broken", path, dropped) == []
    assert dropped == {"source file that cannot be read or parsed": 1}


def test_warnings_of_old_source_stay_quiet(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text('x = "\\d"\nif x is "y": pass\n', encoding="utf-8")
    assert read_file("p", "p.old", path, Counter()) == []


def test_source_files_leave_out_tests_and_copies(tmp_path: Path) -> None:
    for name in (
        *("__init__.py", "b.py", "a/__init__.py", "a/deep.py", "tests/test_a.py", "test_x.py"),
        *("_vendor/six.py", "externals/copy.py", "conftest.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    modules = [module for module, _ in source_files(tmp_path, "p")]
    assert modules == ["p", "p.a", "p.a.deep", "p.b"]


def test_packages_are_located_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud_package").mkdir()
    (tmp_path / "loud_package" / "__init__.py").write_text("raise SystemExit", encoding="utf-8")
    (tmp_path / "loud_module.py").write_text("raise SystemExit", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("loud_package") == tmp_path / "loud_package"
    assert locate("loud_module") == tmp_path / "loud_module.py"
    assert not {"loud_package", "loud_module"} & set(sys.modules)
    assert locate("no_such_package") is None
    stdlib = locate("stdlib")
    assert stdlib is not None and (stdlib / "ast.py").is_file()
    with pytest.raises(ValueError, match=r"'os\.path' is not the name of a top-level package"):
        locate("os.path")


def test_a_script_beside_the_one_that_runs_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python looks first in the folder of the script: scripts/evaluate.py hid a package."""
    (tmp_path / "scripts").mkdir()
    for name in ("evaluate", "only_a_script"):
        (tmp_path / "scripts" / f"{name}.py").write_text("raise SystemExit", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "scripts" / "prepare_data.py")])
    monkeypatch.syspath_prepend(str(tmp_path / "scripts"))
    package = locate("evaluate")
    assert package is not None and (package / "__init__.py").is_file()
    assert locate("only_a_script") is None


@pytest.mark.parametrize(
    ("module", "package", "topic"),
    [
        ("scipy.stats._stats_py", "scipy", "scipy.stats"),
        ("pandas.core.frame.x", "pandas", "pandas.core.frame"),
        ("six", "six", "six"),
        ("email.mime.text", "stdlib", "email"),
    ],
)
def test_topics(module: str, package: str, topic: str) -> None:
    assert topic_of(module, package) == topic


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("See :ref:`the guide <guide>` of :math:`a < b`.", "See the guide of a < b."),
        ("A [`~loop.Trainer`] and a `link <https://x.y>`_.", "A Trainer and a link."),
        ("**Bold** and *slanted*, not **kwargs, *args", "Bold and slanted, not **kwargs, *args"),
        ("Text.\n\n.. note:: Keep me.\n\n.. seealso::\n   Not me.", "Text.\n\nKeep me."),
        ("Text.\n\nExamples:\n    >>> f()\n\nReturns:\n    One.", "Text.\n\nReturns:\nOne."),
        ("Text.\n\n>>> f()\n3\n\nMore.", "Text.\n\nMore."),
        ("> [!TIP]\n> Mind the gap.\n\n!!! note\n    Well.", "Mind the gap.\n\nWell."),
        ("<Tip warning={true}>\n\nMind the gap.\n\n</Tip>", "Mind the gap."),
        ("摘要。\n\n参数\n----\nx : 一个数", "摘要。\n\n参数:\nx : 一个数"),
    ],
)  # fmt: skip
def test_markup_is_taken_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "summary", "rest"),
    [
        ("One thing, e.g. This. Two.\n\nThree.", "One thing, e.g. This.", "Two.\n\nThree."),
        ("f(a, b) -> c\n\nReal summary.\n\nRest.", "Real summary.", "Rest."),
        ("Over two\nlines.\n\nRest.", "Over two lines.", "Rest."),
        ("Alone", "Alone", ""),
    ],
)
def test_summary_is_the_first_sentence(text: str, summary: str, rest: str) -> None:
    assert split_summary(text) == (summary, rest)


@pytest.mark.parametrize(
    "query",
    [
        *(
            "Return it.",
            "Initialize self for the new kite object.",
            "See the parent class for help.",
        ),
        *("Parameters of the kite in the wind", "lower case start of a long summary"),
        *("Compute x = fly(wind) + 3 for all", "Return the value of the object.", "word " * 40),
        *("Deprecated since the last kite flew away.", "Kites of the following kinds are known:"),
    ],
)
def test_poor_queries(query: str) -> None:
    assert query_fault(query) is not None


def test_a_long_document_is_cut_at_a_line_or_a_word() -> None:
    assert shortened("a " * 990 + "\n" + "b " * 99) == ("a " * 990).rstrip()
    one_line = "word " * 500
    assert shortened(one_line) == one_line[:1999]  # never nothing
    assert shortened("字" * 2500) == "字" * 2000


def test_documents_are_judged() -> None:
    query = "Measure the length of a kite line."
    good = "The line is laid out on the ground and measured with a tape " * 3
    assert query_fault(query) is None
    assert document_fault(good, query) is None
    assert document_fault(good + query, query) == "rest repeats the summary"
    assert document_fault("Too short a line.", query) == "rest too short"
    assert document_fault("bread and butter with jam " * 8, query) is not None
    assert document_fault(good + "\ud800", query) is not None


def pair(name: str, query: str, document: str) -> DocstringPair:
    package, topic, *_ = name.split(".")
    return DocstringPair(name, package, f"{package}.{topic}", query, document, False)


def test_similarity_is_the_share_of_the_shorter_text() -> None:
    texts = ["a b c d e", "a b c d e f g h", "x y z", "b c d q r", ""]
    assert list(similar_pairs(texts, 0.3)) == [(1, 0, 1.0), (3, 0, pytest.approx(1 / 3)),
                                               (3, 1, pytest.approx(1 / 3))]  # fmt: skip
    assert [found[:2] for found in similar_pairs(texts, 0.5)] == [(1, 0)]


def test_duplicates_are_dropped_before_the_split() -> None:
    long = " ".join(f"word{number}" for number in range(40))
    pairs = [
        pair("p.a.one", "Find the longest kite.", long),
        pair("p.b.two", "find the longest kite", "something else entirely " * 5),
        pair("p.b.three", "Find the shortest kite.", f"{long} and one more"),
        pair("p.c.four", "Find the reddest kite.", "nothing like the others at all"),
    ]
    dropped: Counter[str] = Counter()
    assert [kept.name for kept in deduplicate(pairs, dropped)] == ["p.a.one", "p.c.four"]
    assert dropped == {"summary used before": 1, "document almost as one before": 1}


def word(*digits: int) -> str:
    return "".join("abcdefghij"[digit] for digit in digits) * 2


def many_pairs() -> list[DocstringPair]:
    return [
        pair(
            f"p{p}.m{m}.f{f}",
            f"Fold {word(p, m, f)} before z{word(m, p, f)}.",
            f"Text of {word(p, m, f)} which stands near {word(m, m)} kites.",
        )
        for p in range(2)
        for m in range(10)
        for f in range(4)
    ]


def test_whole_topics_are_held_out_from_every_package() -> None:
    pairs = many_pairs()
    parts = split_by_topic(pairs, heldout_size=16, dev_size=8, seed=1)
    topics = {part: {found.topic for found in parts[part]} for part in parts}
    assert sorted(found.name for part in parts.values() for found in part) == sorted(
        found.name for found in pairs
    )
    assert not topics["train"] & topics["heldout"] and not topics["dev"] & topics["heldout"]
    assert not topics["train"] & topics["dev"]
    assert Counter(found.package for found in parts["heldout"]) == {"p0": 8, "p1": 8}
    assert len(parts["dev"]) == 8
    assert parts == split_by_topic(pairs, 16, 8, seed=1)
    assert parts != split_by_topic(pairs, 16, 8, seed=2)


def test_a_split_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="only 80 pairs were found"):
        split_by_topic(many_pairs(), 40, 8, seed=1)
    with pytest.raises(ValueError, match="give a larger --dev_size"):
        split_by_topic(many_pairs(), 16, 1, seed=1)


def test_negatives_are_other_documents_and_answer_other_questions() -> None:
    first = many_pairs()[0]
    again = pair("p0.m0.again", first.query.replace("before", "after"), f"{word(0, 0)} once more")
    quote = pair("p0.m0.quote", "Something different entirely", f"{first.query} See above.")
    pairs = [*many_pairs(), again, quote]
    mined = list(hard_negatives(pairs, 5, seed=3))
    assert mined == list(hard_negatives(pairs, 5, seed=3))
    for own, found in zip(pairs, mined, strict=True):
        assert len(found) == len(set(found)) == 5
        assert own.document not in found
    assert not {again.document, quote.document} & set(mined[0])
    place = next(place for place, other in enumerate(pairs) if other.name == "p1.m3.f0")
    assert {other.document for other in pairs if other.topic == "p1.m3"} & set(mined[place])
    with pytest.raises(ValueError, match="5 negatives need more than 5 pairs"):
        list(hard_negatives(pairs[:5], 5, seed=3))
