"""Convert a decoder that answers "yes" or "no" into an ordinary reranker.

Such rerankers (Qwen3-Reranker and others) score a pair by the probability of "yes" against "no" as
the next token after an instruction: sigmoid(logit of yes - logit of no). A logit is the state of
the last token times the word's row of the output matrix, so a sequence classifier whose only row is
the difference of the two rows gives the same score, and trains, saves and serves like any other.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from common.json_files import read_json
from encoders.opening.model_name import resolve_model
from encoders.opening.template import set_pair_template
from encoders.reranker import Reranker

OUTPUT = "lm_head.weight"

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
        ValueError: It is no causal language model, or an answer is not one token.
    """
    folder = resolve_model(name_or_path, revision)
    config = read_json(folder / "config.json")
    kind = ", ".join(config.get("architectures") or ["a model without a name"])
    if not kind.endswith("ForCausalLM"):
        raise ValueError(
            f"{name_or_path} is {kind}, not a causal language model; a "
            "reranker with a scoring head is used as it is"
        )
    reranker = Reranker.from_pretrained(folder, trust_remote_code=trust_remote_code)
    head: Any = reranker.backbone.score
    relevant, other = (_answer(reranker.tokenizer, answer) for answer in answers)
    embeddings: Any = reranker.backbone.get_input_embeddings().weight
    rows = _output_rows(folder, [relevant, other], embeddings)
    with torch.no_grad():
        head.weight.copy_(rows[:1] - rows[1:])
    reranker.tokenizer = set_pair_template(reranker.tokenizer, pair_template)
    return reranker


def _answer(tokenizer: PreTrainedTokenizerBase, answer: str) -> int:
    ids: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(
            f"answers: {answer!r} is {len(ids)} tokens of this model; give a word that is one token"
        )
    return ids[0]


def _output_rows(folder: Path, tokens: list[int], embeddings: Tensor) -> Tensor:
    """Rows of the output matrix; of the input matrix, where the two are tied."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if OUTPUT in set(weights.keys()):
                matrix = weights.get_slice(OUTPUT)
                return torch.cat([matrix[token : token + 1] for token in tokens]).float()
    return embeddings.detach()[tokens]
