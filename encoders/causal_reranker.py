"""Convert a decoder that answers "yes" or "no" into an ordinary reranker.

Such rerankers (Qwen3-Reranker and others) score a pair by the probability of "yes" against "no" as
the next token after an instruction: sigmoid(logit of yes - logit of no). A logit is the state of
the last token times the word's row of the output matrix, so a sequence classifier whose only row is
the difference of the two rows gives the same score, and trains, saves and serves like any other.
"""

import gc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from common.json_files import read_json
from encoders.opening.model_name import resolve_model
from encoders.opening.template import set_pair_template
from encoders.reranker import Reranker

# Pairs that are scored before and after the conversion, which must agree so far.
TRIALS = (
    ("capital of France", "Paris is the capital of France."),
    ("how to read a csv file", "A cat sat on the mat."),
    ("感冒吃什么药", "多喝水，注意休息。"),
)
TOLERANCE = 1e-3

# Of Qwen3-Reranker, as in its model card.
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
ANSWERS = ("yes", "no")
PAIR_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def open_causal_reranker(
    name_or_path: str,
    *,
    pair_template: str,
    answers: tuple[str, str] = ANSWERS,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Reranker:
    """Open a causal language model as a reranker.

    Args:
        name_or_path: A folder, a name on the Hub, or ``package://<module>/<path>``.
        pair_template: The text around a pair, with ``{query}`` and ``{document}``.
        answers: What it answers for a relevant document and for another; one token each.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether Python code of the folder may run.

    Raises:
        ValueError: It is no causal language model, an answer is not one token, or the score would
            not be the decoder's.
    """
    folder = resolve_model(name_or_path, revision)
    config = read_json(folder / "config.json")
    kind = ", ".join(config.get("architectures") or ["a model without a name"])
    if not kind.endswith("ForCausalLM"):
        raise ValueError(
            f"{name_or_path} is {kind}, not a causal language model; a "
            "reranker with a scoring head is used as it is"
        )
    try:
        plain = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # third-party code on untrusted files may raise anything
        raise ValueError(f"{folder} has no tokenizer that opens: {error}") from None
    relevant, other = (_answer(plain, answer) for answer in answers)
    tokenizer = set_pair_template(plain, pair_template)
    ids = [tokenizer(*pair)["input_ids"] for pair in TRIALS]
    row, wanted = _ask(folder, ids, relevant, other, trust_remote_code)
    gc.collect()  # both models at once would need twice the memory
    reranker = Reranker.from_pretrained(folder, trust_remote_code=trust_remote_code)
    head: Any = getattr(reranker.backbone, "score", None)
    if head is None:
        raise ValueError(
            f"{name_or_path}: {kind} cannot be converted: its classifier is not one layer"
        )
    with torch.no_grad():
        head.weight.copy_(row)
    reranker.tokenizer = set_pair_template(reranker.tokenizer, pair_template)
    scores = reranker.score_pairs(*zip(*TRIALS, strict=True))
    if not torch.allclose(scores, wanted, rtol=TOLERANCE, atol=TOLERANCE):
        raise ValueError(
            f"{name_or_path}: {kind} cannot be converted: its scores would change (by up to "
            f"{float((scores - wanted).abs().max()):.3g} on a few texts), since its logits are not "
            "just its output matrix times a state: they have a bias, are scaled or capped"
        )
    return reranker


def _answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> int:
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"answers: {answer!r} is {len(ids)} tokens of this model; give a word that is one token"
        )
    return ids[0]


def _ask(
    folder: Path, texts: list[list[int]], relevant: int, other: int, trust_remote_code: bool
) -> tuple[Tensor, Tensor]:
    """The difference of two rows of the output matrix [1, H], and of two logits of T texts [T]."""
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # third-party code on untrusted files may raise anything
        raise ValueError(f"{folder} cannot be opened: {' '.join(str(error).split())}") from error
    with torch.inference_mode():
        last = torch.stack([model(torch.tensor([ids])).logits[0, -1] for ids in texts])
    matrix = model.get_output_embeddings().weight.detach()
    return (matrix[relevant] - matrix[other])[None].clone(), last[:, relevant] - last[:, other]
