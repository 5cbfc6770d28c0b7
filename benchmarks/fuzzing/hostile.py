"""Hostile input for ``benchmarks/fuzzing/fuzz.py``: mutations of well-formed files."""

import gzip
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS: list[dict[str, Any]] = [
    {"query": "how to read a csv", "doc": "import csv", "rel": 1, "weight": 2.0, "key": "a1"},
    {"query": "感冒发烧", "pos_doc": "多喝水，注意休息", "negatives": ["今天天气很好", "x"]},
    {"query": "q", "pos": ["p"], "neg": ["n", {"text": "m"}], "neg_scores": [0.1, -3]},
    {"query": "q", "hits": [{"content": "c", "label": 1}, {"content": "d", "label": 0.5}]},
    {"question": "q", "answers": {"text": ["a", "b"]}, "ctx": [{"x": "n", "ok": True}, {"x": "m"}]},
    {"anchor": "q", "positive": "p", "negative_1": "n", "negative_10": "m", "scores": [1, 0, 0.5]},
    {"anchor": "q", "positive": ["p", {"title": "T", "text": "n"}], "labels": [True, False]},
]  # fmt: skip
RECIPE: dict[str, Any] = {
    "objective": "contrastive", "model_name_or_path": "a/b", "train_file": ["rows.jsonl"],
    "output_dir": "out", "loss_args": {"temperature": 0.05}, "learning_rate": 2e-5,
    "label_map": {"3": 1, "0": 0.25}, "matryoshka_dims": [64, 32], "query_prompt": "为这个句子",
    "bf16": False, "eval_strategy": "no", "max_steps": 10, "seed": 7, "eval_file": None,
}  # fmt: skip
YAML = "\n".join(f"{name}: {json.dumps(value)}" for name, value in RECIPE.items())

# Whole values, as JSON, that readers have fallen over.
VALUES = [
    "1e999", "-1e999", "NaN", "Infinity", "9" * 5000, "1e-400", "-0", "0x10", "1_000", "true",
    "null", '""', '" "', r'"\u0000"', r'"\ud800"', r'"\udfff\ud800"', '"\u202eabc"', '"\u2028"',
    '"\ufeff"', "[]", "{}", "[[]]", "[" * 2000 + "]" * 2000, "[" * 100_000, '{"a":' * 100_000,
    '{"query": 1, "query": 2}', '[{"a": 1, "a": 2}]', "3e38", "1" + "0" * 400, '"' + "长" * 100_000,
    '"' + "x" * 1_000_000 + '"', "1e38", "12345678901234567890", "0.1e1", "\\u0041", "'a'", "1 2",
]  # fmt: skip
# Pieces of bytes.
PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xfe\xff", b"\r\n", b"\r", b"\n\n", b"\t", b'"', b"'",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x80", b"{", b"}", b"[", b"]", b":", b",",
    b"\\", b"&a ", b"*a ", b"<<: ", b"!!python/object/apply:os.system ", b"!!set ", b"!!binary ",
    b"!!int ", b"!!timestamp ", b"!!null ", b"!!omap ", b"? ", b"--- ", b"%YAML 1.2\n", b"# ", b"|",
    b">", b"\x1b[2J", b"PAR1", b"\x1f\x8b\x08", "\u202e".encode(), "é".encode("latin-1"),
    "查询".encode("gb18030"), "query\tdoc\tlabel\n".encode("utf-16"), b"query,doc,rel\n",
]  # fmt: skip
# The README.md of a data set's clone.
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: [data/a*, "more/**"]
  - {split: test, path: data/test.jsonl}
- config_name: zh
  data_dir: data
---
# A data set
"""
# Nine to the power of twelve words, if anybody writes them out.
BOMB = "\n".join(
    [
        "label_map:",
        "  a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
    ]
)


def seeds() -> dict[str, list[bytes]]:
    """Well-formed files, by the ending of their name."""
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    table = "query,doc,rel\n" + "\n".join(f'"q{n}","d ""{n}"", x",0.{n}' for n in range(5))
    tabs = "\n".join(f"问{n}\t答{n}\t{n}" for n in range(4))
    headed = "query\tpos_doc\n" + "\n".join(f"q{n}\td{n}" for n in range(4))
    return {
        ".jsonl": [lines.encode(), lines.replace("\n", "\r\n").encode()],
        ".json": [json.dumps(ROWS).encode(), json.dumps(ROWS, indent=1).encode()],
        ".csv": [table.encode(), ("\ufeff" + table).encode()],
        ".tsv": [tabs.encode(), headed.encode()],
        ".jsonl.gz": [gzip.compress(lines.encode(), mtime=0)],
        ".parquet": [_parquet(ROWS[:1]), _parquet(ROWS[2:3]), _parquet(ROWS[3:])],
        ".card": [CARD.encode(), CARD.replace("default", "en").encode()],
        ".state": [b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": null}'],
        ".splits": [b'{"splits": ["train", "test"]}'],
        ".recipe.json": [json.dumps(RECIPE).encode(), json.dumps(RECIPE, indent=2).encode()],
        ".recipe.yaml": [YAML.encode(), BOMB.encode(), b"label_map: &a {a: *a}\n"],
    }


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    kept = [{k: v for k, v in row.items() if k != "neg"} for row in rows]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept * 3), stream)
    return stream.getvalue()


class Mutator:
    """Changes bytes; the same seed gives the same inputs.

    Args:
        seed: Of the random numbers.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ways: list[Callable[[bytearray], None]] = [
            self._flip, self._cut, self._repeat, self._insert, self._value, self._swap,
        ]  # fmt: skip

    def change(self, data: bytes) -> bytes:
        """One to six changes, one after the other."""
        changed = bytearray(data)
        for _ in range(self.random.randint(1, 6)):
            self.random.choice(self.ways)(changed)
        return bytes(changed)

    def _span(self, data: bytearray) -> slice:
        begin = self.random.randrange(len(data) + 1)
        return slice(begin, begin + self.random.choice([1, 2, 8, 64, 1000]))

    def _flip(self, data: bytearray) -> None:
        for _ in range(self.random.choice([1, 1, 4, 16]) if data else 0):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)

    def _cut(self, data: bytearray) -> None:
        del data[self._span(data)]

    def _repeat(self, data: bytearray) -> None:
        span = self._span(data)
        piece = data[span] * self.random.choice([1, 1, 2, 50])
        data[span.start : span.start] = piece[: 1 << 20]

    def _insert(self, data: bytearray) -> None:
        at = self.random.randrange(len(data) + 1)
        data[at:at] = self.random.choice(PIECES)

    def _value(self, data: bytearray) -> None:
        """Put a whole value where one may stand."""
        places = [at for at, byte in enumerate(data[:5000]) if byte in b":,[\t"]
        if places:
            at = self.random.choice(places) + 1
            piece = self.random.choice(VALUES).encode("utf-8", "surrogatepass")
            end = at + self.random.choice([0, 0, 4, 10])
            data[at:end] = piece + self.random.choice([b"", b","])

    def _swap(self, data: bytearray) -> None:
        one, other = self._span(data), self._span(data)
        piece = bytes(data[one])
        data[other] = piece
