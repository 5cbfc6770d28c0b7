"""Negatives from the batch, against a naive look at all rows of the file."""

import json
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from collators import GroupCollator
from trainers.config.arguments import TandemArguments
from trainers.config.assembly import read_eval_rows, read_train_rows
from trainers.run import build_run


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_contradict_each_other_are_told(
    streaming: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        {"query": "a", "pos": ["p"], "neg": ["n", "p"]},  # within a row the positive counts
        {"query": "a", "pos": ["n"], "neg": ["m"]},
        {"query": "b", "pos": ["m"], "neg": ["p"]},
        {"query": "a", "pos": ["q"], "neg": ["p"]},
    ]
    file = tmp_path / "rows.jsonl"
    told = []
    for kept in (records, records[1:3]):
        file.write_text("".join(json.dumps(record) + "\n" for record in kept))
        caplog.clear()
        args = TandemArguments(
            objective="bce",
            model_name_or_path="a",
            train_file=str(file),
            output_dir=str(tmp_path),
            streaming=streaming,
        )
        read_train_rows(build_run(args))
        told += [each for each in caplog.messages if "negative" in each]
    assert told == [
        "2 rows have a negative that another row of the same query has as a positive, and it is "
        "learned as both; the first is row 0 (from 0), of the query 'a'"
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_row_outside_the_batch_judges_is_no_negative(
    streaming: bool, tmp_path: Path, tiny_tokenizer: BertTokenizer
) -> None:
    records = [
        {"query": f"q {at % 5}", "pos": [f"p {at % 7}"], "neg": [f"n {at % 4}", f"汉 {at % 3}"]}
        for at in range(30)
    ] + [{"query": "once", "pos": ["p 1"], "neg": ["n 1"]}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    args = TandemArguments(
        objective="listwise",
        model_name_or_path="a",
        train_file=str(file),
        eval_file=str(file),
        output_dir=str(tmp_path),
        in_batch_negatives=99,
        streaming=streaming,
    )
    run = build_run(args)
    judged: dict[str, set[str]] = defaultdict(set)
    for record in records:
        judged[str(record["query"])].update(record["pos"], record["neg"])
    collate = GroupCollator(tiny_tokenizer, 16, in_batch_negatives=99)
    for rows in (read_train_rows(run), read_eval_rows(run)):
        rows = pickle.loads(pickle.dumps(rows))
        assert len(rows) == 31 and rows[-1]["query"] == "once"
        taken = 0
        for batch in ([0, 1, 30], [3, 9, 27, 16]):
            chosen: list[dict[str, Any]] = [{**rows[at], "row": at, "epoch": 0} for at in batch]
            texts = {text for row in chosen for text in row["pos"] + row["neg"]}
            for row, group in zip(chosen, collate.groups(chosen), strict=True):
                own = {*row["pos"], *row["neg"]}
                drawn = {text for text, _ in group} - own
                assert drawn == texts - judged[row["query"]]
                taken += len(texts - own) - len(drawn)
        assert taken > 5  # there was something to leave out
