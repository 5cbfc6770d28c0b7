"""Vectors on disk: found again, shared, and whole after a kill at any moment."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.hardware import multiplies_in_bf16
from common.prompts import with_prompt
from common.text_digest import Keys, KeyTable, pair_keys, text_keys
from encoders import Embedder, Reranker
from encoders.opening.model_digest import model_digest
from mining.cache.vectors import VectorCache
from mining.search.encode import BLOCK, EncodingSettings, cache_key, encode_all
from tiny import TEXTS, save_backbone, save_classifier
from zoo import change_json

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 3


def texts(start: int, stop: int) -> list[str]:
    return [f"文本 {number}" for number in range(start, stop)]


def vectors(keys: Keys) -> NDArray[np.float32]:
    """A vector that can be told from the key."""
    return (keys[:, :1] % 1000 + np.arange(WIDTH, dtype=np.uint64)).astype(np.float32)


def fill(cache: VectorCache, start: int, stop: int) -> None:
    keys = text_keys(texts(start, stop))
    cache.append(keys, vectors(keys))


def found(cache: VectorCache, stop: int = 100) -> list[int]:
    """The numbers of the texts that are there, after a check that their vectors are theirs."""
    keys = text_keys(texts(0, stop))
    places = cache.find(keys)
    there = np.flatnonzero(places >= 0)
    assert np.array_equal(cache.take(places[there]), vectors(keys[there]))
    return there.tolist()


def test_what_is_appended_is_found_after_a_refresh_and_later(tmp_path: Path) -> None:
    with VectorCache(tmp_path, WIDTH) as cache:
        fill(cache, 0, 5)
        fill(cache, 10, 12)
        assert found(cache) == []
        cache.refresh()
        assert found(cache) == [0, 1, 2, 3, 4, 10, 11]
    with VectorCache(tmp_path, WIDTH) as cache:
        fill(cache, 5, 6)
        cache.refresh()
        assert found(cache) == [0, 1, 2, 3, 4, 5, 10, 11]
    assert len(list(tmp_path.glob("*.keys"))) == 1


def test_two_writers_at_once_have_a_part_each(tmp_path: Path) -> None:
    with VectorCache(tmp_path, WIDTH) as one, VectorCache(tmp_path, WIDTH) as other:
        fill(one, 0, 5)
        fill(other, 5, 9)
        fill(one, 9, 10)
        other.refresh()
        assert found(other) == list(range(10))
    assert len(list(tmp_path.glob("*.keys"))) == 2


@pytest.mark.parametrize("suffix", [".keys", ".vectors"])
def test_a_tail_cut_anywhere_is_left_out_and_written_anew(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with VectorCache(whole, WIDTH) as cache:
        for start in (0, 4, 8):
            fill(cache, start, start + 4)
    size = (whole / f"part-00000{suffix}").stat().st_size
    blocks_at = set()
    for length in range(0, size + 1, 4):
        folder = tmp_path / f"cut{length}"
        shutil.copytree(whole, folder)
        os.truncate(folder / f"part-00000{suffix}", length)
        with VectorCache(folder, WIDTH) as cache:
            there = found(cache)
            assert there == list(range(len(there)))
            assert len(there) % 4 == 0
            assert len(there) == 4 * (3 * length // size)
            blocks_at.add(len(there))
            fill(cache, 20, 23)
            cache.refresh()
            assert found(cache) == [*there, 20, 21, 22]
        shutil.rmtree(folder)
    assert blocks_at == {0, 4, 8, 12}


def test_keys_that_do_not_match_their_checksum_are_not_believed(tmp_path: Path) -> None:
    with VectorCache(tmp_path, WIDTH) as cache:
        fill(cache, 0, 4)
        fill(cache, 4, 8)
    file = tmp_path / "part-00000.keys"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert found(VectorCache(tmp_path, WIDTH)) == [0, 1, 2, 3]


def test_a_writer_that_is_killed_leaves_whole_blocks(tmp_path: Path) -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        import numpy as np
        from mining.cache.vectors import VectorCache
        from common.text_digest import text_keys
        cache = VectorCache(Path({str(tmp_path)!r}), {WIDTH})
        for start in range(0, 1_000_000, 10):
            keys = text_keys(f"文本 {{number}}" for number in range(start, start + 10))
            added = np.arange({WIDTH}, dtype=np.uint64)
            cache.append(keys, (keys[:, :1] % 1000 + added).astype(np.float32))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    keys = tmp_path / "part-00000.keys"
    while not keys.exists() or keys.stat().st_size < 20_000:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with VectorCache(tmp_path, WIDTH) as cache:  # and its lock is gone
        count = len(found(cache, 1_000_000 // 10))
        assert count >= 10
        assert count % 10 == 0
        fill(cache, count, count + 10)
        cache.refresh()
        assert len(found(cache, 1_000_000 // 10)) == count + 10
    assert len(list(tmp_path.glob("*.keys"))) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.data())
def test_keys_are_found_as_by_a_dict(pairs: list[tuple[int, int]], data: st.DataObject) -> None:
    # Few different numbers: many keys begin with the same half.
    keys = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    first = {pair: place for place, pair in reversed(list(enumerate(pairs)))}
    asked = data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
    expected = [first.get(pair, -1) for pair in asked]
    got = KeyTable(keys).find(np.array(asked, dtype=np.uint64).reshape(-1, 2))
    assert got.tolist() == expected


def test_a_texts_key_knows_where_its_prompt_ends() -> None:
    """Some models leave the tokens of a prompt out of pooling."""
    keys = text_keys(["a: b", with_prompt("b", "a: "), with_prompt("a: b", ""), "b"])
    assert KeyTable(keys).find(keys).tolist() == [0, 1, 0, 3]


def test_a_pairs_key_knows_where_the_first_text_ends() -> None:
    keys = pair_keys([("ab", "c"), ("a", "bc"), ("ab", "c"), ("1 a", "b"), ("", "abc")])
    assert len(np.unique(keys, axis=0)) == 4
    assert (keys[0] == keys[2]).all()


def test_a_models_digest_is_that_of_its_content(tiny_bert: Path, tmp_path: Path) -> None:
    base = Embedder.from_pretrained(tiny_bert)
    digest = model_digest(base)
    base.encode(["a cat"], max_length=8)  # sets the tokenizer to cut there
    assert model_digest(base) == digest
    base.save_pretrained(tmp_path / "copy")
    assert model_digest(Embedder.from_pretrained(tmp_path / "copy")) == digest
    others: dict[str, Any] = {
        "pooling": Embedder.from_pretrained(tiny_bert, pooling="cls"),
        "not at unit length": Embedder.from_pretrained(tiny_bert, normalize=False),
        "tokenizer": Embedder.from_pretrained(
            save_backbone(tmp_path / "cased", (*TEXTS[1:], TEXTS[0][::-1]))
        ),
        "fine-tune": Embedder.from_pretrained(tiny_bert),
        "reranker": Reranker.from_pretrained(save_classifier(tmp_path / "reranker")),
    }
    with torch.no_grad():
        tuned: Any = others["fine-tune"].backbone
        tuned.encoder.layer[1].output.dense.bias[0] += 1e-7
    others["dot product"] = Embedder.from_pretrained(tiny_bert, normalize=False)
    others["dot product"].settings["similarity_fn_name"] = "dot"
    tokenizers: dict[str, dict[str, Any]] = {
        "special tokens are text": {"split_special_tokens": True},
        "no types": {"model_input_names": ["input_ids", "attention_mask"]},
    }
    for name, settings in tokenizers.items():
        base.save_pretrained(folder := tmp_path / name)
        change_json(folder / "tokenizer_config.json", **settings)
        others[name] = Embedder.from_pretrained(folder)
    digests = [model_digest(model) for model in others.values()]
    assert len({digest, *digests}) == 9


def test_settings_that_change_vectors_have_caches_of_their_own(tiny_bert: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert)
    own = [cache_key(model, "d", EncodingSettings(max_length=length)) for length in (None, 8, 128)]
    assert own[0] == own[2] != own[1]  # the model's own limit is 128
    assert cache_key(model, "e", EncodingSettings()) != own[0]
    # Without bf16 in the processor it is not used, and changes nothing.
    fast = multiplies_in_bf16()
    assert (cache_key(model, "d", EncodingSettings(bf16=True)) != own[0]) == fast


class Counting(Embedder):
    """Remembers what it was asked to encode."""

    def encode(self, texts: Sequence[str], **settings: Any) -> torch.Tensor:
        self.asked = [*getattr(self, "asked", []), list(texts)]
        return super().encode(texts, **settings)


def test_texts_are_encoded_once_and_in_the_same_blocks(tiny_bert: Path, tmp_path: Path) -> None:
    model = Counting.from_pretrained(tiny_bert)
    many = [f"{TEXTS[number % 10]} {number}" for number in range(2 * BLOCK + 50)]

    def read(start: int, stop: int) -> list[str]:
        return many[start:stop]

    with VectorCache(tmp_path, 32) as cache:
        encoded = encode_all(model, len(many), read, cache, EncodingSettings(), "documents")
        assert [len(block) for block in model.asked] == [BLOCK, BLOCK, 50]
        some = [5, BLOCK, 2 * BLOCK + 49]
        plain = torch.nn.functional.normalize(model.encode([many[at] for at in some]), dim=-1)
        assert torch.allclose(encoded.at(some), plain, atol=1e-6)
        assert torch.equal(encoded.slice(BLOCK, BLOCK + 1), encoded.at([BLOCK]))
    # The second block is lost: it alone is encoded again, to the same bits.
    keys = tmp_path / "part-00000.keys"
    content = keys.read_bytes()
    first = 24 + 16 * BLOCK
    model.asked = []
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "part-00000.vectors", other)
    (other / keys.name).write_bytes(content[:first])
    with VectorCache(other, 32) as cache:
        again = encode_all(model, len(many), read, cache, EncodingSettings(), "documents")
    assert [block[0] for block in model.asked] == [many[BLOCK], many[2 * BLOCK]]
    assert torch.equal(again.slice(0, len(many)), encoded.slice(0, len(many)))


def test_a_model_that_has_diverged_is_said(tiny_bert: Path, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert)
    with torch.no_grad():
        backbone: Any = model.backbone
        backbone.encoder.layer[0].output.dense.bias[0] = torch.nan
    with (
        VectorCache(tmp_path, 32) as cache,
        pytest.raises(ValueError, match=r"2 documents contain NaN or infinity .*'文本 0'"),
    ):
        encode_all(model, 2, texts, cache, EncodingSettings(), "documents")
    assert (VectorCache(tmp_path, 32).find(text_keys(texts(0, 2))) == -1).all()
