"""Templates of pairs, end tokens, and the rerankers that answer yes or no."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaTokenizer,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForCausalLM,
)

from encoders import Embedder, Reranker
from encoders.causal_reranker import INSTRUCTION, PAIR_TEMPLATE, open_causal_reranker
from encoders.opening.template import end_with_eos, set_pair_template
from scripts.convert_reranker import main
from serving.engine.tokenization import TextTokenizer
from tiny import TEXTS, make_tokenizer, save_backbone
from zoo import change_json

TEMPLATE = "<|im_start|>judge\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
PAIRS = [
    ("capital of France", TEXTS[2]),
    ("感冒吃什么药", TEXTS[6]),
    ("猫", " ".join(TEXTS * 3)),
]


@pytest.fixture(scope="module")
def qwen() -> Qwen2Tokenizer:
    """Byte-level BPE, as Qwen's, with the merges of a few texts."""
    rules = json.loads(Qwen2Tokenizer().backend_tokenizer.to_str())
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = Tokenizer.from_str(json.dumps(rules)).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    raw.train_from_iterator([*TEXTS * 3, *["yes", "no", "是", "否"] * 40], trainer)
    model = json.loads(raw.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.model_max_length = 128
    return tokenizer


def save_causal(folder: Path, tokenizer: PreTrainedTokenizerBase, tied: bool) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
        initializer_range=0.3,
    )
    model: Qwen3ForCausalLM = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def joined(tokenizer: Any, query: str, document: str) -> str:
    return TEMPLATE.replace("{query}", query).replace("{document}", document)


def test_a_pair_is_written_as_in_the_template(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    tokenizer = set_pair_template(qwen, TEMPLATE)
    for query, document in PAIRS[:2]:
        # Neither text ends in what the tokenizer would join to the line break behind it.
        ids = tokenizer(query, document.rstrip("。"))["input_ids"]
        whole = joined(qwen, query, document.rstrip("。"))
        assert ids == qwen(whole, add_special_tokens=False)["input_ids"]
    assert qwen("a", "b")["input_ids"] == qwen("ab")["input_ids"]  # the given one is as it was
    # Opened again, by any class: Qwen2Tokenizer would build its parts anew.
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(*PAIRS[0])["input_ids"] == tokenizer(*PAIRS[0])["input_ids"]


def test_the_tokenizers_own_settings_stay(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    qwen.save_pretrained(tmp_path)
    change_json(tmp_path / "tokenizer_config.json", split_special_tokens=True)
    for copy in (
        set_pair_template(AutoTokenizer.from_pretrained(tmp_path), TEMPLATE),
        end_with_eos(AutoTokenizer.from_pretrained(tmp_path)),
    ):
        assert copy.model_input_names == qwen.model_input_names
        copy.save_pretrained(tmp_path / "saved")
        again = AutoTokenizer.from_pretrained(tmp_path / "saved")
        plain = qwen.convert_tokens_to_ids("<|im_start|>")
        inside = set(again("cat <|im_start|> dog", "b")["input_ids"])
        served = TextTokenizer(again, 64).pairs([("cat <|im_start|> dog", "b")])[0].input_ids
        assert list(again("cat <|im_start|> dog", "b")["input_ids"]) == served
        template = set(again("cat dog", "b")["input_ids"])
        assert (plain in inside) == (plain in template)  # in the template alone, if there is one


def test_only_the_texts_are_cut(qwen: Qwen2Tokenizer) -> None:
    tokenizer = set_pair_template(qwen, TEMPLATE)
    cut = {"truncation": "longest_first", "max_length": 64}
    ids = tokenizer(*PAIRS[2], **cut)["input_ids"]
    assert len(ids) == 64
    text = str(tokenizer.decode(ids))
    assert text.startswith("<|im_start|>judge\n<Query>: 猫\n<Document>: how to read")
    assert text.endswith("<|im_end|>\n")
    served = TextTokenizer(tokenizer, 64)
    assert [tokens.input_ids for tokens in served.pairs(PAIRS)] == [
        tokenizer(*pair, **cut)["input_ids"] for pair in PAIRS
    ]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{query} only", "must have {query} once and {document} once behind it"),
        ("{document} before {query}", "once behind it"),
        ("{query} {query} {document}", "once behind it"),
        ("Q: {query}\nD:{document}", "a space before both"),
    ],
)
def test_templates_that_cannot_be(qwen: Qwen2Tokenizer, template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        set_pair_template(qwen, template)


@pytest.mark.parametrize("tied", [True, False])
def test_a_yes_no_reranker_scores_as_the_decoder_answers(
    qwen: Qwen2Tokenizer, tmp_path: Path, tied: bool
) -> None:
    causal = save_causal(tmp_path / "causal", qwen, tied)
    reranker = open_causal_reranker(str(tmp_path / "causal"), pair_template=TEMPLATE)
    yes, no = (qwen(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
    wanted = []
    for pair in PAIRS:
        ids = reranker.tokenizer(*pair, truncation="longest_first", max_length=128)["input_ids"]
        with torch.no_grad():
            logits = causal(torch.tensor([ids])).logits[0, -1]
        wanted.append(torch.log_softmax(logits[[no, yes]], dim=0)[1].exp())
    torch.testing.assert_close(reranker.score(PAIRS), torch.stack(wanted), atol=1e-5, rtol=0)


def test_a_head_of_another_name_is_found(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    causal = GPTNeoXForCausalLM(GPTNeoXConfig(**small(qwen), tie_word_embeddings=False)).eval()
    causal.save_pretrained(tmp_path)
    qwen.save_pretrained(tmp_path)
    reranker = open_causal_reranker(str(tmp_path), pair_template=TEMPLATE)
    ids = reranker.tokenizer(*PAIRS[0])["input_ids"]
    yes, no = (qwen(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
    with torch.no_grad():
        logits = causal(torch.tensor([ids])).logits[0, -1]
    scores = reranker.score(PAIRS[:1], raw=True)
    torch.testing.assert_close(scores[0], logits[yes] - logits[no], atol=1e-4, rtol=0)


def test_logits_that_are_no_product_are_refused(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    phi = PhiForCausalLM(PhiConfig(**small(qwen), tie_word_embeddings=False))
    torch.nn.init.normal_(phi.lm_head.bias)
    capped = Gemma2Config(
        **small(qwen), num_key_value_heads=4, head_dim=8, final_logit_softcapping=1.0
    )
    for name, model in (("phi", phi), ("gemma", Gemma2ForCausalLM(capped))):
        model.save_pretrained(tmp_path / name)
        qwen.save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=r"ForCausalLM cannot be converted: its scores would"):
            open_causal_reranker(str(tmp_path / name), pair_template=TEMPLATE)


def test_a_classifier_of_several_layers_is_refused(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    RobertaForCausalLM(RobertaConfig(**small(qwen), is_decoder=True)).save_pretrained(tmp_path)
    qwen.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"RobertaForCausalLM cannot be converted: its classifier"):
        open_causal_reranker(str(tmp_path), pair_template=TEMPLATE)


def small(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Of a configuration."""
    torch.manual_seed(0)
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3,
        "max_position_embeddings": 512, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def test_the_script_writes_what_others_open(
    qwen: Qwen2Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qwen.model_max_length = 512  # the whole template takes 227
    save_causal(tmp_path / "causal", qwen, tied=True)
    flags = ["--model", str(tmp_path / "causal"), "--output_dir", str(tmp_path / "reranker")]
    assert main(flags) == 0
    ours = Reranker.from_pretrained(tmp_path / "reranker")
    text = ours.tokenizer.decode(ours.tokenizer("how", "a cat")["input_ids"])
    assert text == PAIR_TEMPLATE.format(instruction=INSTRUCTION, query="how", document="a cat")
    theirs = CrossEncoder(str(tmp_path / "reranker"), device="cpu")
    torch.testing.assert_close(
        torch.tensor(theirs.predict(PAIRS)), ours.score(PAIRS), atol=1e-5, rtol=0
    )
    template, marked = tmp_path / "template.txt", tmp_path / "marked"
    template.write_text(PAIR_TEMPLATE, encoding="utf-8-sig")  # as Windows' editors save it
    assert main([*flags[:3], str(marked), "--pair_template", str(template)]) == 0
    tokenizer = Reranker.from_pretrained(marked).tokenizer
    assert tokenizer.decode(tokenizer("how", "a cat")["input_ids"]) == text
    capsys.readouterr()
    assert main(flags) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*flags[:3], str(tmp_path / "other"), "--answers", "zebra", "no"]) == 2
    assert "'zebra' is" in capsys.readouterr().err
    flags[1] = str(tmp_path / "reranker")
    assert main([*flags[:3], str(tmp_path / "other")]) == 2
    assert "not a causal language model" in capsys.readouterr().err


def test_an_instruction_without_a_place_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "template.txt"
    file.write_text(TEMPLATE, encoding="utf-8")
    flags = [f"--{name}={tmp_path / 'x'}" for name in ("model", "output_dir")]
    assert main([*flags, f"--pair_template={file}", "--instruction=找出能回答的段落"]) == 2
    assert "template.txt has no {instruction}" in capsys.readouterr().err


def test_texts_end_with_the_end_token(qwen: Qwen2Tokenizer, tmp_path: Path) -> None:
    tokenizer = end_with_eos(qwen)
    ids = qwen("how to read")["input_ids"]
    assert tokenizer("how to read")["input_ids"] == [*ids, qwen.eos_token_id]
    cut = tokenizer("how to read a csv file", truncation=True, max_length=4)["input_ids"]
    assert cut == [*qwen("how to read a csv file")["input_ids"][:3], qwen.eos_token_id]
    assert end_with_eos(tokenizer) is tokenizer
    bert = make_tokenizer()
    bert.eos_token = "[SEP]"  # which ends each text already
    assert end_with_eos(bert) is bert
    bert.eos_token = "[MASK]"
    assert end_with_eos(bert)("a cat")["input_ids"] == [*bert("a cat")["input_ids"], 4]
    llama = LlamaTokenizer(vocab=qwen.get_vocab(), merges=[], eos_token="<|endoftext|>")
    ended = end_with_eos(llama)("cat")["input_ids"]
    assert ended == [*llama("cat")["input_ids"], llama.eos_token_id]
    bert.eos_token = None
    with pytest.raises(ValueError, match="has no end token"):
        end_with_eos(bert)


def test_an_embedder_with_an_end_token(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "backbone")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "[MASK]"
    tokenizer.save_pretrained(folder)
    plain = Embedder.from_pretrained(folder, pooling="last")
    model = Embedder.from_pretrained(folder, pooling="last", append_eos_token=True)
    assert not torch.allclose(plain.encode(TEXTS), model.encode(TEXTS), atol=1e-3)
    model.save_pretrained(tmp_path / "saved")
    # For transformers 4, which does not know the newer name.
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    again = Embedder.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.encode(TEXTS), model.encode(TEXTS))
    theirs = torch.tensor(SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS))
    torch.testing.assert_close(theirs, model.encode(TEXTS), atol=1e-5, rtol=0)
