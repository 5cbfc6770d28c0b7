"""Fuzz the reading of training files and folders, for ``benchmarks/fuzzing/fuzz.py``."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from datasets import Dataset, DatasetDict

from loaders import ReadOptions, load_rows, load_rows_in_place
from loaders.parsing.row_stream import RowStream

Target = Callable[[str, bytes], None]

COLUMNS = {"question": "query", "answers.text": "pos", "ctx.x": "neg", "n": "negative_3"}


def read_rows(scratch: Path) -> Target:
    """Read a file as training does: by the stream; now and then into a data set and in place."""
    options = [
        ReadOptions(on_bad_rows="skip"),
        ReadOptions(),
        ReadOptions(on_bad_rows="skip", label_map={"1": 1.0}, needs_negatives=True),
        ReadOptions(on_bad_rows="skip", relevance_from_scores=True, rejected_file=scratch / "bad"),
        ReadOptions(on_bad_rows="skip", columns=COLUMNS),
        ReadOptions(on_bad_rows="skip", columns={"ctx.x": "doc", "ctx.ok": "rel", "q": "key"}),
    ]
    folders = make_folders(scratch)

    def target(ending: str, data: bytes) -> None:
        chosen = options[len(data) % len(options)]
        if ending in folders:
            folders[ending].write_bytes(data)
            chosen = replace(chosen, columns=None, split=(None, "train", "zh")[len(data) % 3])
            for row in RowStream(str(folders[ending].parent), chosen):
                assert row.row.query
            return
        file = scratch / f"input{ending}"
        file.write_bytes(data)
        for row in RowStream(str(file), chosen, needs_rows=False):
            assert row.row.query
        if len(data) % 10 == 0:
            copied = load_rows(str(file), "candidate_group", chosen)
            if ending == ".jsonl":
                in_place = load_rows_in_place(str(file), "candidate_group", chosen)
                assert all(in_place[at] == row for at, row in enumerate(copied))

    return target


def make_folders(scratch: Path) -> dict[str, Path]:
    """Folders of data sets, by the ending of inputs: the file that an input takes the place of."""
    clone, saved = scratch / "clone", scratch / "saved"
    for name in ("data/a.jsonl", "data/test.jsonl", "more/train.jsonl"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text('{"query": "q", "pos_doc": "d"}\n')
    rows = Dataset.from_list([{"query": "q", "pos_doc": "d"}])
    rows.save_to_disk(str(saved))
    DatasetDict({"train": rows, "test": rows}).save_to_disk(str(scratch / "both"))
    return {
        ".card": clone / "README.md",
        ".state": saved / "state.json",
        ".splits": scratch / "both" / "dataset_dict.json",
    }
