"""Models that ONNX Runtime computes: equal to their originals, refused where they cannot serve."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertModel

from encoders import Embedder, Reranker
from encoders.export.graph import export_onnx
from encoders.export.onnx_backbone import ONNX_FILE, STEP, TOKENS_AT_ONCE, OnnxBackbone, pieces
from encoders.kinds import detect_kind
from encoders.opening.model_digest import model_digest
from tiny import TEXTS, save_backbone
from zoo import backbone, layer_weights
from zoo import embedder as zoo_embedder

LONG = [" ".join(TEXTS[:n]) for n in (1, 2, 3, 5, 9)]


def texts(count: int = 40) -> list[str]:
    """Of many lengths, in no order, one empty."""
    words = " ".join(TEXTS).split()
    draw = random.Random(0)
    return ["", *(" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in range(count))]


def exported(encoder: Embedder | Reranker, folder: Path, int8: bool = False) -> Path:
    export_onnx(encoder, folder, int8)
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    """One with a projection and prompts, which pools by the last token, and its graph's folder."""
    folder = tmp_path_factory.mktemp("onnx")
    model = Embedder.from_pretrained(
        save_backbone(folder / "base"),
        pooling="last",
        projection_dim=8,
        prompts={"query": "ask: ", "document": "文档："},
        unpad_inputs=False,
    )
    model.tokenizer.padding_side = "left"  # which a graph could not undo
    return model, exported(model, folder / "graph")


@pytest.fixture(scope="module")
def eight_bits(embedder: tuple[Embedder, Path]) -> Path:
    """Its graph in 8 bits."""
    return exported(embedder[0], embedder[1].with_name("int8"), int8=True)


def test_an_embedder_gives_the_same_vectors(embedder: tuple[Embedder, Path]) -> None:
    """Pooled by the mean: tests/scripts/test_export.py."""
    model, folder = embedder
    other = Embedder.from_pretrained(folder)
    assert isinstance(other.backbone, OnnxBackbone)
    assert other.pooling == "last"
    assert other.tokenizer.padding_side == "right"
    torch.testing.assert_close(other.encode(texts()), model.encode(texts()), atol=1e-5, rtol=0)


def test_projection_prompts_and_limit_go_along(embedder: tuple[Embedder, Path]) -> None:
    model, folder = embedder
    other = Embedder.from_pretrained(folder)
    assert (other.prompts, other.max_length, other.dimension) == (model.prompts, 128, 8)
    assert not list(folder.glob("*.safetensors"))
    assert (folder / ONNX_FILE).is_file()
    for name in ("query", "document"):
        both = (each.encode(LONG, prompt_name=name) for each in (other, model))
        torch.testing.assert_close(*both, atol=1e-5, rtol=0)


def test_cores_that_have_texts_of_their_own_give_the_same(
    embedder: tuple[Embedder, Path],
) -> None:
    model, folder = embedder
    expected = model.encode(texts())
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    found = Embedder.from_pretrained(folder).encode(texts())
    torch.set_num_threads(before)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_reranker_gives_the_same_scores(tmp_path: Path, tiny_classifier: Path) -> None:
    model = Reranker.from_pretrained(tiny_classifier, unpad_inputs=False)
    folder = exported(model, tmp_path / "graph")
    assert detect_kind(folder) == "reranker"
    pairs = [(one, other) for one in LONG for other in texts(8)]
    found = Reranker.from_pretrained(folder).score(pairs, raw=True)
    torch.testing.assert_close(found, model.score(pairs, raw=True), atol=1e-5, rtol=0)


def test_eight_bits_are_near_and_smaller(embedder: tuple[Embedder, Path], eight_bits: Path) -> None:
    (model, folder), small = embedder, eight_bits
    found, wanted = Embedder.from_pretrained(small).encode(LONG), model.encode(LONG)
    cosines = torch.cosine_similarity(found, wanted, dim=-1)
    assert 0.95 < cosines.min() < 1 - 1e-7  # near, and not the same numbers
    files = [(each / ONNX_FILE).stat().st_size for each in (small, folder)]
    assert files[0] < files[1]
    assert [path.name for path in (small / "onnx").iterdir()] == ["model.onnx"]


def test_in_eight_bits_a_vector_does_not_depend_on_others(tmp_path: Path, tiny_bert: Path) -> None:
    """Nor do the numbers of a text suffer from large ones of another."""
    model = Embedder.from_pretrained(tiny_bert, unpad_inputs=False)
    with torch.no_grad():  # a token whose state is a hundred times as large
        model.get_parameter("backbone.embeddings.LayerNorm.weight")[::7] *= 30
    other = Embedder.from_pretrained(exported(model, tmp_path / "int8", int8=True))
    both = torch.cat([other.encode([text]) for text in texts()])
    torch.testing.assert_close(other.encode(texts()), both, atol=1e-4, rtol=0)
    torch.testing.assert_close(other.encode(texts()[::-1]).flip(0), both, atol=1e-4, rtol=0)


def test_a_graph_with_one_scale_for_all_texts_is_given_them_apart(
    embedder: tuple[Embedder, Path], tmp_path: Path
) -> None:
    """As ONNX Runtime's own tool writes them."""
    from onnxruntime.quantization import quantize_dynamic

    shutil.copytree(embedder[1], tmp_path / "theirs")
    quantize_dynamic(embedder[1] / ONNX_FILE, tmp_path / "theirs" / ONNX_FILE)
    other = Embedder.from_pretrained(tmp_path / "theirs")
    alone = torch.cat([other.encode([text]) for text in texts()])
    torch.testing.assert_close(other.encode(texts()), alone, atol=1e-5, rtol=0)


def test_caches_tell_graphs_apart(embedder: tuple[Embedder, Path], eight_bits: Path) -> None:
    (_, folder), other = embedder, eight_bits
    digests = [model_digest(Embedder.from_pretrained(each)) for each in (folder, other, folder)]
    assert digests[0] == digests[2] != digests[1]


def test_caches_tell_weights_beside_a_graph_apart(
    embedder: tuple[Embedder, Path], tmp_path: Path
) -> None:
    """Above 2 GB, and from other tools, weights are in a file of their own."""
    onnx = pytest.importorskip("onnx")
    folder = Path(shutil.copytree(embedder[1], tmp_path / "apart"))
    graph = onnx.load(folder / ONNX_FILE)
    onnx.save(graph, folder / ONNX_FILE, save_as_external_data=True, location="model.onnx_data")
    weights = folder / "onnx" / "model.onnx_data"
    digests = [model_digest(Embedder.from_pretrained(folder)) for _ in range(2)]
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert digests[0] == digests[1] != model_digest(Embedder.from_pretrained(folder))


def test_a_graph_of_roberta_has_as_many_positions_as_the_model(tmp_path: Path) -> None:
    """It states two more: the first are those of padding."""
    model = Embedder.from_pretrained(backbone(tmp_path / "base", "roberta"), unpad_inputs=False)
    graph = Embedder.from_pretrained(exported(model, tmp_path / "graph"))
    found = [each.encode(LONG[-1:], max_length=64) for each in (model, graph)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="65 tokens are asked for, but roberta takes at most 64"):
        graph.encode(LONG[-1:], max_length=65)


def test_what_no_graph_can_be_made_of_is_refused(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph gives the last layer's states alone; pooling without the others is another model."""
    base = backbone(tmp_path / "base", output_hidden_states=True)
    folder = zoo_embedder(tmp_path / "model", base, before=[layer_weights()])
    model = Embedder.from_pretrained(folder, unpad_inputs=False)
    with pytest.raises(ValueError, match="WeightedLayerPooling needs those of all layers"):
        export_onnx(model, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()
    monkeypatch.setattr(BertModel, "forward", lambda self, input_ids, **_: int(input_ids.sum()))
    model = Embedder.from_pretrained(tiny_bert, unpad_inputs=False)
    with pytest.raises(ValueError, match="torch cannot write bert as a graph"):
        export_onnx(model, tmp_path / "graph")


def test_a_graph_that_is_none_is_one_clear_line(
    embedder: tuple[Embedder, Path], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(embedder[1], tmp_path / "broken"))
    (broken / ONNX_FILE).write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"onnx/model.onnx cannot be opened"):
        Embedder.from_pretrained(broken)


@given(st.lists(st.integers(1, 2 * TOKENS_AT_ONCE), max_size=80))
def test_pieces_hold_each_text_once_with_little_padding(lengths: list[int]) -> None:
    found = pieces(lengths)
    assert sorted(text for own, _ in found for text in own) == list(range(len(lengths)))
    for own, longest in found:
        assert longest == max(lengths[text] for text in own)
        assert all(longest - lengths[text] < STEP for text in own)
        assert len(own) == 1 or len(own) * longest <= TOKENS_AT_ONCE
