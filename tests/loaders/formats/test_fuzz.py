"""Hostile training files: rows, or the one error that users are promised, soon.

``benchmarks/fuzzing/fuzz.py`` goes on for as long as it is let.
"""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders import ReadOptions
from loaders.formats.json_text import DECODER, RepeatedName
from loaders.parsing.row_stream import RowStream

LINE = json.dumps({"query": "感冒发烧", "pos": ["多喝水"], "neg": ["今天"], "neg_scores": [0.5]})
TABLE = 'query,doc,rel\n"a ""b""",c,1\nd,"e\nf",0.5\n'
PIECES = st.sampled_from(
    [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"\xed\xa0\x80", b"\x80", b"{", b"]",
    b"1e999", b"NaN", rb"\ud800", b"9" * 5000, b"[" * 100_000, b'{"a":' * 3000, b"PAR1"]
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 30), PIECES), max_size=4)
FILES = {
    ".jsonl": (LINE + "\n" + LINE).encode(),
    ".json": f"[{LINE}, {LINE}]".encode(),
    ".csv": TABLE.encode(),
    ".tsv": "问\t答\t3\nq\td\t0\n".encode(),
    ".jsonl.gz": gzip.compress((LINE + "\n").encode() * 3, mtime=0),
    ".parquet": b"PAR1" + LINE.encode() + b"\x10\0\0\0PAR1",
}


def read(path: Path) -> int:
    """The good rows of a file."""
    stream = RowStream(str(path), ReadOptions(on_bad_rows="skip"), needs_rows=False)
    return sum(bool(located.row.query) for located in stream)


@settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(ending=st.sampled_from(sorted(FILES)), changes=CHANGES)
def test_a_changed_file_is_rows_or_a_value_error(
    tmp_path: Path, ending: str, changes: list[tuple[int, int, bytes]]
) -> None:
    data = FILES[ending]
    for at, length, piece in changes:
        data = data[:at] + piece + data[at + length :]
    path = tmp_path / f"a{ending}"
    path.write_bytes(data)
    try:
        read(path)
    except ValueError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_a_packed_file_that_breaks_off_after_bad_bytes(tmp_path: Path, keep: float) -> None:
    """To find the line of the bad byte, the file is read once more, and breaks off."""
    packed = gzip.compress(b"\x80" * 5 + LINE.encode() * 500, mtime=0)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(packed[: int(len(packed) * keep)])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be unpacked: Compressed file ended"):
        read(path)


def test_fields_of_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"query": "长" * 3_500_000, "pos": ["x" * 10_000_000], "neg": []}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read(path) == 1


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"query":['])
def test_a_hundred_thousand_brackets(tmp_path: Path, opening: str) -> None:
    for name in ("a.jsonl", "a.json"):
        path = tmp_path / name
        path.write_text(LINE + "\n" + opening * 100_000, encoding="utf-8")
        assert read(path) == 1
    path.write_text("[" + opening * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json:1: not JSON"):
        read(path)


def test_the_name_that_stands_twice_is_found_among_a_hundred_thousand() -> None:
    """In one pass: to count each name anew took minutes."""
    names = ", ".join(f'"{n}": 0' for n in range(100_000))
    found = DECODER.decode(f'{{{names}, "99999": 1}}')
    assert isinstance(found, RepeatedName) and found.name == "99999"
