"""A backbone run by ONNX Runtime, for serving and evaluation; it cannot be trained.

Used for folders with ``onnx/model.onnx`` and no safetensors weights, which ``scripts/export.py``
writes. Tokenizer, pooling and prompts are as in any other folder.
"""

import hashlib
from mmap import ACCESS_READ as READ
from mmap import mmap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from encoders.unpadding import parallel_map

# Shapes: B texts, L tokens of the longest, H width of a state.

ONNX_FILE = Path("onnx", "model.onnx")
TOKENS_AT_ONCE = 256  # of a call, padding included; more are no faster on one core
STEP = 16  # texts whose lengths round up to the same multiple run together


def is_onnx(folder: Path) -> bool:
    """Whether a model's folder holds an ONNX graph in place of weights."""
    return (folder / ONNX_FILE).is_file() and not any(folder.glob("*.safetensors"))


class OnnxBackbone(nn.Module):
    """Called like a transformers model, on the CPU, with as many threads as torch has.

    Each thread computes pieces of the batch; a batch of one piece is computed by all together.

    Args:
        folder: With ``config.json`` and ``onnx/model.onnx``.
        output: What the graph computes: "last_hidden_state" [B, L, H] or "logits" [B, 1].

    Raises:
        ValueError: ONNX Runtime is not installed, or the graph cannot be opened.
    """

    def __init__(self, folder: Path, output: str) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise ValueError(
                f"{folder} is an ONNX model, which needs ONNX Runtime; pip "
                "install -c constraints.txt -e '.[onnx]'"
            ) from None
        self.config = AutoConfig.from_pretrained(folder)
        self.output = output

        def opened(threads: int) -> Any:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            # Idle threads must not spin: other sessions need their cores.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 3
            return onnxruntime.InferenceSession(
                folder / ONNX_FILE, options, providers=["CPUExecutionProvider"]
            )

        try:
            self.alone, self.shared = opened(1), opened(torch.get_num_threads())
        except Exception as error:  # onnxruntime's exceptions share no base class
            reason = " ".join(str(error).split())
            raise ValueError(f"{folder / ONNX_FILE} cannot be opened: {reason}") from error
        self.names = [given.name for given in self.alone.get_inputs()]
        # Caches identify a model by its ``state_dict``, so the graph needs an entry there.
        digest = bytearray(files_digest(folder / ONNX_FILE))
        self.register_buffer("digest", torch.frombuffer(digest, dtype=torch.uint8))
        # Graphs of other tools may have one scale for all texts of a call: run these one by one.
        with (folder / ONNX_FILE).open("rb") as file, mmap(file.fileno(), 0, access=READ) as graph:
            self.apart = graph.find(b"DynamicQuantizeLinear") >= 0

    def forward(self, attention_mask: Tensor, **inputs: Tensor) -> Any:
        """Tokens [B, L] to states [B, L, H], 0 at padding, or to logits [B, 1].

        Texts of similar length run together, so that little padding is computed.
        """
        given = {"attention_mask": attention_mask, **inputs}
        lengths = attention_mask.sum(dim=1).clamp(min=1).tolist()

        def run(piece: tuple[list[int], int], session: Any = self.alone) -> Tensor:
            texts, longest = piece
            feed = {name: given[name][texts, :longest].cpu().numpy() for name in self.names}
            return torch.from_numpy(session.run(None, feed)[0])

        # The longest first, so that threads do not wait for a long one at the end.
        parts = pieces(lengths, self.apart)[::-1]
        computed = [run(parts[0], self.shared)] if len(parts) == 1 else parallel_map(run, parts)
        first = computed[0]
        padded = attention_mask.shape[1:] if first.dim() == 3 else ()
        found = first.new_zeros(len(lengths), *padded, first.shape[-1])
        for (texts, longest), part in zip(parts, computed, strict=True):
            if part.dim() == 3:
                found[texts, :longest] = part
            else:
                found[texts] = part
        found = found.to(attention_mask.device)
        if self.output == "logits":
            return SequenceClassifierOutput(logits=found)
        return BaseModelOutput(last_hidden_state=found)


def files_digest(graph: Path) -> bytes:
    """A digest of a graph and of the files beside it, the weights of large ones: 32 bytes."""
    digest = hashlib.sha256()
    beside = {path for path in graph.parent.rglob("*") if path.is_file()} - {graph}
    for path in (graph, *sorted(beside)):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.digest()


def pieces(lengths: list[int], apart: bool = False) -> list[tuple[list[int], int]]:
    """Text indices and their longest length: pieces of one padded length and bounded size.

    ``lengths`` are the tokens of each text; with ``apart`` each text is a piece.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if apart:
        return [([text], lengths[text]) for text in order]
    found: list[tuple[list[int], int]] = []
    for text in order:
        places = -(-lengths[text] // STEP)
        last = found[-1] if found else ([], 0)
        same = -(-last[1] // STEP) == places
        if not same or (len(last[0]) + 1) * places * STEP > max(TOKENS_AT_ONCE, places * STEP):
            found.append(([], 0))
        texts, longest = found[-1]
        found[-1] = ([*texts, text], max(longest, lengths[text]))
    return found
