"""Runs in TREC format: what is written is read back, and trec_eval's reader agrees."""

from pathlib import Path

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from evaluation import read_run, write_run
from evaluation.metrics.ranking import order

IDS = st.text("ab文献9-_./", min_size=1, max_size=5)
SCORES = st.floats(allow_nan=False, width=32)


def test_lines_are_those_of_the_format(tmp_path: Path) -> None:
    file = tmp_path / "run.trec"
    write_run(file, {"问1": {"文1": 0.5, "d2": 2.0, "文2": 0.5}, "q2": {}}, tag="mine")
    assert file.read_text(encoding="utf-8") == (
        "问1 Q0 d2 1 2.0 mine\n问1 Q0 文2 2 0.5 mine\n问1 Q0 文1 3 0.5 mine\n"
    )


@given(run=st.dictionaries(IDS, st.dictionaries(IDS, SCORES, min_size=1), min_size=1))
def test_a_run_comes_back_to_the_last_bit(
    run: dict[str, dict[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("run") / "run.trec"
    write_run(file, run)
    found = read_run(file)
    assert found == run
    for query, scores in run.items():
        assert list(found[query]) == order(scores)
    with file.open(encoding="utf-8") as lines:
        assert pytrec_eval.parse_run(lines) == run


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("q1 Q0 d1 1 0.5\n", "run.trec:1: expected query-id, Q0, document-id, rank, score and tag"),
        (
            "q1 Q0 d1 1 0.5 x\nq1 Q0 文 2 high x",
            "run.trec:2: the score must be a number, got 'high'",
        ),
        ("q1 Q0 d1 1 nan x\n", "run.trec:1: the score must be a number, got 'nan'"),
        ("q1 Q0 文 1 2 x\n\nq1 Q0 文 2 1 x\n", "run.trec:3: the document '文' is listed twice"),
        ("\n", "run.trec is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: str, message: str) -> None:
    file = tmp_path / "run.trec"
    file.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_run(file)
    assert message in str(error.value)


def test_a_missing_file_and_another_encoding_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere does not exist"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "run").write_bytes("问 Q0 文 1 1 x".encode("gb18030"))
    with pytest.raises(ValueError, match="run:1: not UTF-8"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q 1": {"d": 1.0}}, "x", "query-id: 'q 1' cannot be written to a TREC file"),
        ({"q": {"文\u3000献": 1.0}}, "x", r"document-id: '文\u3000献' cannot"),
        ({"": {"d": 1.0}}, "x", "query-id: ''"),
        ({"q": {"d": 1.0}}, "my tag", "tag: 'my tag'"),
        ({"q": {"d": float("nan")}}, "x", "'d' is NaN"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, run: dict[str, dict[str, float]], tag: str, message: str
) -> None:
    with pytest.raises(ValueError) as error:
        write_run(tmp_path / "run", run, tag)
    assert message in str(error.value)
