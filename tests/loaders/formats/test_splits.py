"""Folders by their splits: nothing that is for testing is trained on without being named."""

import json
import logging
from pathlib import Path, PurePath
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from loaders import ReadOptions, load_rows
from loaders.formats.sources import all_files, find_sources
from loaders.formats.splits import split_of

CARD = """---
configs:
- config_name: en
  data_files: en/*.jsonl
- config_name: zh
  data_files:
  - split: train
    path: [zh/a*, zh/more/**]
  - split: held
    path: zh/held.jsonl
---
# Two languages
"""


def write(path: Path, query: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"query": query, "pos_doc": "d"}) + "\n", encoding="utf-8")


def folder_of(folder: Path, *names: str) -> str:
    """A folder of files, each with one row whose query is the file's name."""
    for name in names:
        write(folder / name, name)
    return str(folder)


def queries(spec: str, **options: Any) -> list[str]:
    rows = load_rows(spec, "positive_pair", ReadOptions(**options))
    return [rows[at]["query"] for at in range(len(rows))]


def error_of(spec: str, **options: Any) -> str:
    with pytest.raises(ValueError) as raised:
        queries(spec, **options)
    return str(raised.value).removeprefix(spec)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001-0a1b.parquet", "validation"),
        ("data/zh-00000-of-00001.parquet", "zh"),
        ("part-00000-of-00004.parquet", ""),
        ("Train.csv", "train"),
        ("training_set.jsonl.gz", "train"),
        ("msmarco.dev.tsv", "validation"),
        ("val 2.json", "validation"),
        ("eval_pairs.jsonl", "test"),
        ("testing/a.jsonl", "test"),
        ("en/test/train.jsonl", "test"),
        ("train_dev_split.jsonl", "validation"),
        ("train/shard1.parquet", "train"),
        ("医疗问答训练集.jsonl", "train"),
        ("开发集/a.csv", "validation"),
        ("医疗测试集2.jsonl", "test"),
        ("软件测试.jsonl", ""),
        ("latest.jsonl", ""),
        ("contest/retrained.jsonl", ""),
        ("devices.csv", ""),
    ],
)
def test_what_a_name_says(path: str, split: str) -> None:
    assert split_of(PurePath(path)) == split


def test_a_folder_with_several_splits(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "f", "train.jsonl", "more/train_2.jsonl", "dev.jsonl", "test/a.jsonl"
    )
    assert error_of(folder) == (
        ": it has several splits, and none is chosen: validation, train, test; name one: "
        f"{folder}@train, or split: train"
    )
    assert error_of(folder, evaluates=True).startswith(": it has several splits")
    assert queries(folder, split="train") == ["more/train_2.jsonl", "train.jsonl"]
    for name in ("dev", "validation", "val"):
        assert queries(folder, split=name) == queries(f"{folder}@{name}") == ["dev.jsonl"]
    assert queries(f"{folder}@test", split="train") == ["test/a.jsonl"]
    assert (
        error_of(folder, split="zh")
        == ": there is no split 'zh'; there are validation, train, test"
    )
    assert len(all_files([folder])) == 4


def test_files_of_no_split_beside_those_of_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "a.jsonl", "train.jsonl")
    assert queries(folder) == ["a.jsonl", "train.jsonl"]
    assert queries(folder_of(tmp_path / "g", "b.jsonl", "a.jsonl")) == ["a.jsonl", "b.jsonl"]
    folder_of(tmp_path / "f", "test.jsonl")
    assert "none is chosen: files of no split, test, train" in error_of(folder)
    assert "it has no splits; leave split out" in error_of(str(tmp_path / "g"), split="train")


def test_a_folder_for_testing_only(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", "test.jsonl", "test_2.jsonl")
    assert "it has only the split test, which has to be named to be trained on" in error_of(folder)
    assert len(queries(folder, evaluates=True)) == len(queries(f"{folder}@test")) == 2
    # A file or folder that the user names is named.
    assert queries(f"{folder}/test.jsonl") == ["test.jsonl"]
    assert queries(folder_of(tmp_path / "test", "a.jsonl")) == ["a.jsonl"]


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "a.jsonl") + "/a.jsonl"
    with pytest.raises(ValueError, match=r"^split: .* is a file, which has no splits"):
        find_sources(file, split="train")
    at = folder_of(tmp_path / "with@sign", "b.jsonl")
    assert queries(at) == queries(f"{at}/b.jsonl") == ["b.jsonl"]


def saved(query: str, split: str | None = None) -> Dataset:
    rows = [{"query": query, "positive_passages": [{"title": "T", "text": "d"}], "odd": None}]
    return Dataset.from_list(rows, split=split)


def test_what_save_to_disk_writes(tmp_path: Path) -> None:
    both = DatasetDict({"train": saved("t"), "dev": saved("d")})
    both.save_to_disk(str(tmp_path / "both"), num_shards={"train": 1, "dev": 1})
    folder = str(tmp_path / "both")
    assert "none is chosen: train, dev" in error_of(folder)
    assert (queries(folder, split="train"), queries(f"{folder}@validation")) == (["t"], ["d"])
    DatasetDict({"train": saved("only")}).save_to_disk(str(tmp_path / "one"))
    assert queries(str(tmp_path / "one")) == ["only"]
    saved("x").save_to_disk(str(tmp_path / "plain"))
    assert queries(str(tmp_path / "plain")) == ["x"]
    # It knows of what it was a part, and among other folders it is one thing.
    saved("held out", "test").save_to_disk(str(tmp_path / "held"))
    assert "only the split test" in error_of(str(tmp_path / "held"))
    saved("y", "train").save_to_disk(str(tmp_path / "many" / "one"))
    folder_of(tmp_path / "many", "z.jsonl")
    assert queries(str(tmp_path / "many")) == ["y", "z.jsonl"]


def test_a_saved_data_set_that_lacks_files(tmp_path: Path) -> None:
    saved("x").save_to_disk(str(tmp_path / "plain"))
    next((tmp_path / "plain").glob("*.arrow")).unlink()
    assert "(of save_to_disk) cannot be read after row 0" in error_of(str(tmp_path / "plain"))
    DatasetDict({"train": saved("t")}).save_to_disk(str(tmp_path / "both"))
    (tmp_path / "both" / "train" / "state.json").unlink()
    assert "save_to_disk wrote the split 'train', and it is not there" in error_of(
        str(tmp_path / "both")
    )


def test_a_clone_with_configurations(tmp_path: Path) -> None:
    clone = folder_of(
        tmp_path, "en/x.jsonl", "zh/a.jsonl", "zh/more/b.jsonl", "zh/held.jsonl", "other.jsonl"
    )
    (tmp_path / "README.md").write_text(CARD)
    assert error_of(clone).startswith(": it has several configurations, and none is chosen: en, zh")
    assert queries(f"{clone}:en") == ["en/x.jsonl"]
    assert queries(f"{clone}:zh@train") == ["zh/a.jsonl", "zh/more/b.jsonl"]
    assert queries(f"{clone}:zh", split="held") == ["zh/held.jsonl"]
    assert "none is chosen: train, held" in error_of(f"{clone}:zh")[len(":zh") - 3 :]
    assert "no configuration 'fr'; there are en, zh" in error_of(f"{clone}:fr")
    (tmp_path / "README.md").write_text(CARD.replace("config_name: zh", "config_name: default"))
    assert queries(clone, split="held") == ["zh/held.jsonl"]


@pytest.mark.parametrize("pattern", ["../*", "/etc/hostname", "https://example.com/a.jsonl"])
def test_a_card_names_files_of_its_folder_only(pattern: str, tmp_path: Path) -> None:
    folder_of(tmp_path, "secret.jsonl")
    clone = folder_of(tmp_path / "clone", "a.jsonl")
    card = f"---\nconfigs:\n- config_name: default\n  data_files: '{pattern}'\n---\n"
    (tmp_path / "clone" / "README.md").write_text(card)
    assert "README.md" in error_of(clone)


def test_a_key_of_a_card_without_a_value_is_not_there(tmp_path: Path) -> None:
    clone = folder_of(tmp_path, "data/a.jsonl", "b.jsonl")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  data_dir: data\n---\n"
    (tmp_path / "README.md").write_text(card)
    assert queries(clone) == ["data/a.jsonl"]
    (tmp_path / "README.md").write_text(card.replace("data_dir: data", "data_dir:"))
    assert queries(clone) == ["b.jsonl", "data/a.jsonl"]


def test_a_snapshot_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    """Its files are links to blobs beside it."""
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    (snapshot / "data").mkdir(parents=True)
    write(tmp_path / "datasets--a--b" / "blobs" / "5f", "in a blob")
    write(tmp_path / "datasets--c--d" / "blobs" / "77", "of another")
    (snapshot / "data" / "train.jsonl").symlink_to("../../../blobs/5f")
    card = "---\nconfigs:\n- config_name: default\n  data_files: data/*.jsonl\n---\n"
    (snapshot / "README.md").write_text(card)
    assert queries(str(snapshot)) == ["in a blob"]
    (snapshot / "data" / "z.jsonl").symlink_to("../../../../datasets--c--d/blobs/77")
    assert "is outside of the folder" in error_of(str(snapshot))


def test_linked_folders_are_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", "a.jsonl", "sub/b.jsonl")
    folder_of(tmp_path / "elsewhere", "c.jsonl")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "sub" / "round").symlink_to(tmp_path / "data")  # has no end
    assert queries(folder) == ["a.jsonl", "c.jsonl", "sub/b.jsonl"]
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data" / "sub")
    (tmp_path / "data" / "sub" / "on").symlink_to(tmp_path / "elsewhere")  # nor have these
    (tmp_path / "data" / "latest.jsonl").symlink_to("a.jsonl")
    assert sorted(queries(folder)) == ["a.jsonl", "c.jsonl", "sub/b.jsonl"]
    (tmp_path / "data" / "test.jsonl").symlink_to("a.jsonl")
    assert "several splits, and none is chosen: files of no split, test" in error_of(folder)


@pytest.mark.parametrize("files", ["", " ", ["", "a.jsonl"]])
def test_an_empty_name_is_not_the_current_folder(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a shell makes of a variable that is not set."""
    folder_of(tmp_path, "a.jsonl")
    monkeypatch.chdir(tmp_path)
    for find in (find_sources, all_files):
        with pytest.raises(ValueError, match="a file name is empty"):
            find([files] if isinstance(files, str) else files)


def test_a_card_may_not_be_a_bomb(tmp_path: Path) -> None:
    """Nine to the power of nine words, if anybody writes them out."""
    clone = folder_of(tmp_path, "a.jsonl")
    lists = [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]" for at in range(1, 9)]
    for yaml in ("\n".join(["a0: &a0 [x]", *lists, "configs: *a8"]), "configs: " + "[" * 999):
        (tmp_path / "README.md").write_text(f"---\n{yaml}\n---\n")
        assert "README.md: its configurations cannot be read" in error_of(clone)


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet", "train.csv"])
def test_a_pointer_of_git_lfs(name: str, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n"
    (tmp_path / name).write_text(pointer)
    assert error_of(str(tmp_path)).endswith(
        "is a pointer of Git LFS, not the data; fetch it: git lfs pull"
    )


def test_what_lies_beside_the_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What datasets and our scripts write about the rows is no row; packed rows are told of."""
    caplog.set_level(logging.INFO, "loaders")
    folder = folder_of(tmp_path, "a.jsonl")
    for name in ("dataset_infos.json", "a.jsonl.settings.json", "config.json"):
        (tmp_path / name).write_text('{\n"a": 1}')
    (tmp_path / "NOTES").write_text("x")
    assert queries(folder) == ["a.jsonl"]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    caplog.clear()
    (tmp_path / "b.jsonl.zst").write_bytes(b"x")
    assert queries(folder) == ["a.jsonl"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_beir_folder_is_no_training_data(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    assert "is a folder in the BEIR layout; make training rows of it first" in error_of(folder)
