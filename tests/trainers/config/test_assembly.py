"""What a recipe is assembled to."""

from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder
from trainers import TandemArguments, build_run
from trainers.config.assembly import open_model, read_train_rows
from zoo import backbone


@pytest.mark.parametrize(
    ("loss_args", "normalize", "similarity"),
    [
        ({}, False, "cosine"),
        ({"similarity": "cosine"}, False, "cosine"),
        ({"similarity": "dot"}, False, "dot"),
        ({"similarity": "dot"}, True, "cosine"),  # which is the same for unit vectors
    ],
)
def test_a_model_is_compared_as_it_was_trained(
    loss_args: dict[str, Any], normalize: bool, similarity: str, tiny_bert: Path, tmp_path: Path
) -> None:
    args = TandemArguments(
        objective="contrastive",
        model_name_or_path=str(tiny_bert),
        train_file="rows.jsonl",
        output_dir=str(tmp_path),
        loss_args=loss_args,
        normalize=normalize,
    )
    model: Any = open_model(build_run(args))
    assert model.similarity == similarity
    if normalize:  # a prefix is served at unit length, and has none of its own
        args.matryoshka_dims = [32, 8]
        with pytest.raises(ValueError, match=r"loss_args: similarity: .*normalize false"):
            open_model(build_run(args))
    model.save_pretrained(tmp_path / "model")
    assert Embedder.from_pretrained(tmp_path / "model").similarity == similarity


def test_other_similarities_are_refused(tmp_path: Path) -> None:
    given: Any = {"model_name_or_path": "a", "train_file": "b", "output_dir": str(tmp_path)}
    args = TandemArguments(objective="cosent", loss_args={"similarity": "l2"}, **given)
    with pytest.raises(ValueError, match='loss_args: similarity: "l2" is not one of cosine, dot'):
        build_run(args)


def dot_model(folder: Path, backbone: Path) -> Path:
    model = Embedder.from_pretrained(backbone, normalize=False)
    model.settings["similarity_fn_name"] = "dot"
    model.save_pretrained(folder)
    return folder


def test_a_model_of_another_similarity_than_its_loss_is_refused(
    tiny_bert: Path, tmp_path: Path
) -> None:
    given: Any = {"model_name_or_path": str(dot_model(tmp_path / "dot", tiny_bert))}
    given |= {"objective": "contrastive", "train_file": "b", "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match='made for the similarity "dot"'):
        open_model(build_run(TandemArguments(**given)))
    for similarity in ("dot", "cosine"):
        args = TandemArguments(**given, loss_args={"similarity": similarity})
        model: Any = open_model(build_run(args))
        assert model.similarity == similarity


def test_sources_of_different_similarities_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    given: Any = {"model_name_or_path": str(tiny_bert), "output_dir": str(tmp_path)}
    files: Any = [
        {"path": "a.jsonl", "loss_args": {"similarity": "dot"}},
        {"path": "b.jsonl", "loss_args": {"temperature": 0.02}},
    ]
    args = TandemArguments(objective="contrastive", train_files=files, normalize=False, **given)
    with pytest.raises(ValueError, match="the losses of a run must compare alike"):
        open_model(build_run(args))


def test_to_go_beyond_the_limit_of_a_folder_both_lengths_are_given(tmp_path: Path) -> None:
    given: Any = {"model_name_or_path": str(backbone(tmp_path / "model", limit=32))}
    given |= {"objective": "cosent", "train_file": "b", "output_dir": str(tmp_path)}
    args = TandemArguments(**given, document_max_length=64)
    with pytest.raises(ValueError, match=r"document_max_length: 64 .* states 32; .* both"):
        open_model(build_run(args))
    args.query_max_length = 16
    assert open_model(build_run(args)).max_length == 64


def test_pairs_have_no_candidates_to_be_added_to(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"query": "a", "doc": "b", "rel": 1}\n{"query": "a", "doc": "c", "rel": 0}\n')
    args = TandemArguments(
        objective="bce",
        model_name_or_path="a",
        train_file=str(file),
        output_dir=str(tmp_path),
        in_batch_negatives=2,
    )
    with pytest.raises(ValueError, match=r"in_batch_negatives: .*rows.jsonl has scored pairs"):
        read_train_rows(build_run(args))
