"""Compute on real tokens only: padding is taken out inside the model, exactly.

Outside, a batch stays ``input_ids`` and ``attention_mask`` [B, L]. Inside the backbone the real
tokens run as rows [1, T] with the positions they have in their own texts; attention stays within
each text; the result is laid back to [B, L, H], zero where there was padding. Everything but
attention works token by token, so nothing else has to know.

Texts are ordered by length on the way in, so that those of about one length attend in one call.
On a CPU they run in several rows, each core its own.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from encoders.opening.positions import position_offset
from encoders.unpadding.attention import ATTENTION
from encoders.unpadding.dropout import drawn_by
from encoders.unpadding.layout import TextLayout
from encoders.unpadding.packing import cut_by_tokens, is_even, row_pieces
from encoders.unpadding.parallel import parallel_map, side_by_side_with_gradients

logger = logging.getLogger(__name__)

# Shapes: B texts, L tokens of the longest, T real tokens of a row, H width.

# Where the texts of a row begin, for the pooler: each thread has its own row.
_row = threading.local()


def unpad_inputs(model: PreTrainedModel) -> bool:
    """Take padding out of ``model``'s backbone from now on, if it can be done exactly.

    Whether it can is tried: a small batch must give the same states with and without padding.

    Returns:
        Whether the model runs unpadded; if not, it is as it was.
    """
    backbone: Any = model.base_model
    before = model.config._attn_implementation
    if backbone._can_set_attn_implementation():
        padded = _try_probe(backbone)
        model.set_attn_implementation(ATTENTION)
        unpadding = Unpadding(backbone)
        unpadded = None if padded is None else _try_probe(backbone)
        if unpadded is not None and torch.allclose(padded, unpadded, atol=1e-4, rtol=1e-3):
            return True
        unpadding.remove()
        model.set_attn_implementation(before)
    logger.warning(
        "%s cannot run without padding: it runs padded, which is slower", model.config.model_type
    )
    return False


class PackedSequence(NamedTuple):
    """Texts that stand one after the other without padding.

    Args:
        states: [T, H].
        texts: The number of each in its batch.
        lengths: Tokens of each.
        layers: States of all layers, [1, T, H] each, where the model's configuration has
            ``output_hidden_states``.
    """

    states: Tensor
    texts: list[int]
    lengths: Tensor
    layers: Sequence[Tensor] | None = None


class Unpadding:
    """A backbone's forward, and what is done before and after it.

    Args:
        backbone: A model whose attention goes through transformers' ``AttentionInterface``.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.backbone: Any = backbone
        self.padded_forward: Callable[..., Any] = backbone.forward
        self.parameters = signature(backbone.forward).parameters
        self.open = any(p.kind is Parameter.VAR_KEYWORD for p in self.parameters.values())
        self.first_position = position_offset(backbone)
        backbone.forward = self.forward
        pooler = getattr(backbone, "pooler", None)
        self.hooks = []
        if isinstance(pooler, nn.Module):
            # It picks each text's first token.
            self.hooks.append(
                pooler.register_forward_pre_hook(
                    lambda _, args: (args[0][0, _row.starts, None], *args[1:])
                )
            )

    def remove(self) -> None:
        """Leave the backbone as it was."""
        del self.backbone.forward
        for hook in self.hooks:
            hook.remove()

    def forward(self, *args: Any, lay_back: bool = True, **kwargs: Any) -> Any:
        """The backbone's own signature and results; ``lay_back=False``: ``PackedSequence`` each."""
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        inputs = {name: value for name, value in given.items() if value is not None}
        ids = inputs.pop("input_ids")  # [B, L]
        mask = inputs.pop("attention_mask", None)
        mask = torch.ones_like(ids) if mask is None else or_first(mask)
        lengths = mask.sum(dim=1).tolist()
        cores = self._cores(ids.device)
        pieces = self._pieces(lengths, ids.device, cores)
        order = [text for piece in pieces for text in piece]
        rows, columns = mask[order].nonzero(as_tuple=True)
        index = torch.tensor(order, device=ids.device)[rows] * ids.shape[1] + columns
        tokens = [sum(lengths[text] for text in piece) for piece in pieces]

        def take(values: Tensor) -> tuple[Tensor, ...]:
            return values.flatten()[index][None].split(tokens, dim=1)  # [1, T] each

        # All tokens in one look-up: its gradient is as large as the vocabulary.
        embedded = self.backbone.get_input_embeddings()(ids.flatten()[index])[None]
        embedded_rows = embedded.split(tokens, dim=1)
        varying = {
            "position_ids": take(mask.cumsum(dim=1) - 1 + self.first_position),
        }
        if "token_type_ids" in inputs:
            varying["token_type_ids"] = take(inputs.pop("token_type_ids"))
        if "use_cache" in self.parameters or self.open:
            inputs["use_cache"] = False

        def run(at: int, row: Tensor) -> Any:
            layout = TextLayout([lengths[text] for text in pieces[at]], ids.device)
            _row.starts = layout.bounds[:-1]
            own = {name: values[at] for name, values in varying.items()}
            return self.padded_forward(**inputs, **own, inputs_embeds=row, layout=layout)

        apart = cores > 1 and is_even(tokens, cores)
        outputs = (
            self._apart(run, embedded_rows)
            if apart
            else list(map(run, range(len(pieces)), embedded_rows))
        )
        if lay_back:
            return _lay_back(outputs, index, order, ids.shape)
        return [
            PackedSequence(
                output.last_hidden_state[0],
                piece,
                torch.tensor(sizes, device=ids.device),
                getattr(output, "hidden_states", None),
            )
            for output, piece in zip(outputs, pieces, strict=True)
            for sizes in [[lengths[text] for text in piece]]
        ]

    def _apart(self, run: Callable[[int, Tensor], Any], rows: tuple[Tensor, ...]) -> list[Any]:
        """``run`` of each row, on a core of its own."""
        compute = self._drawing_apart(run, len(rows)) if self.backbone.training else run
        if not torch.is_grad_enabled():
            return parallel_map(lambda at: compute(at, rows[at]), range(len(rows)))
        words = self.backbone.get_input_embeddings().weight  # looked up outside
        weights = [p for p in self.backbone.parameters() if p.requires_grad and p is not words]
        return side_by_side_with_gradients(compute, rows, weights)

    def _drawing_apart(self, run: Callable[[int, Tensor], Any], count: int) -> Callable[..., Any]:
        """``run`` with a random generator of each row, whichever thread is first."""
        seeds = torch.randint(2**63 - 1, (count,)).tolist()

        def drawing(at: int, row: Tensor) -> Any:
            with drawn_by(seeds[at]):
                return run(at, row)

        return drawing

    def _cores(self, device: torch.device) -> int:
        """Rows that may run at once: on a CPU, one on each core.

        Not where processes that share the weights out have to ask each other for them in one order,
        and not where dropout is drawn in a way that depends on the order of the rows.
        """
        sharded = any(isinstance(module, FSDPModule) for module in self.backbone.modules())
        if device.type != "cpu" or sharded or (self._in_training() and self._draws_by_itself()):
            return 1
        return torch.get_num_threads()

    def _draws_by_itself(self) -> bool:
        """Whether random numbers are drawn again for a second forward, or by torch's dropout."""
        return bool(self.backbone.is_activation_checkpointing) or any(
            type(module) is nn.Dropout and module.p > 0 and module.training
            for module in self.backbone.modules()
        )

    def _in_training(self) -> bool:
        """Also in the first pass of the gradient cache, which has no gradients.

        It needs the rows of the second, or dropout would be another there.
        """
        return torch.is_grad_enabled() or self.backbone.training

    def _pieces(self, lengths: list[int], device: torch.device, cores: int) -> list[list[int]]:
        """The texts of each row, by number."""
        if device.type != "cpu":
            return cut_by_tokens(lengths, 2**62)
        return row_pieces(lengths, self.backbone.config.hidden_size, cores, self._in_training())


def or_first(mask: Tensor) -> Tensor:
    """The mask [B, L], with one token for texts that have none.

    Some tokenizers make nothing of an empty text; it is then one token of padding.
    """
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    return torch.where(mask.any(dim=1, keepdim=True), mask, first)


def _lay_back(
    outputs: list[ModelOutput], index: Tensor, order: list[int], shape: torch.Size
) -> ModelOutput:
    """States of the rows [1, T, H] to [B, L, H], each token where ``index`` says in [B * L]."""

    def padded(states: tuple[Tensor, ...]) -> Tensor:
        rows = torch.cat(states, dim=1)[0]
        laid = rows.new_zeros(shape.numel(), rows.shape[-1])
        return laid.index_copy(0, index, rows).view(*shape, -1)

    output = outputs[0]
    for name in list(output):
        values = [other[name] for other in outputs]
        if isinstance(values[0], tuple):
            output[name] = tuple(padded(layer) for layer in zip(*values, strict=True))
        elif values[0].dim() == 3:
            output[name] = padded(tuple(values))
        else:  # the pooler's, one of each text
            places = torch.tensor(order, device=index.device).argsort()
            output[name] = torch.cat(values)[places]
    return output


def _try_probe(backbone: PreTrainedModel) -> Any:
    """States of a small batch, or None where the model cannot be run so."""
    try:
        return _probe(backbone)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:
        logger.debug("unpadding %s: %s", backbone.config.model_type, error)
        return None


@torch.no_grad()
def _probe(backbone: PreTrainedModel) -> Tensor:
    """States of two texts of different length, 0 at padding."""
    training = backbone.training
    backbone.eval()
    device = next(backbone.parameters()).device
    vocabulary = backbone.config.vocab_size
    ids = torch.arange(10, device=device).view(2, 5) * 7 % (vocabulary - 5) + 5
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], device=device)
    padding = getattr(backbone.config, "pad_token_id", None) or 0
    ids = ids.masked_fill(mask == 0, padding)
    states = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    backbone.train(training)
    return states * mask[..., None]
