"""Run a backbone on packed sequences: remove padding on the way in, add it on the way out. Exact.

Callers keep passing ``input_ids`` and ``attention_mask`` [B, L]. Inside the backbone the real
tokens form packed sequences [1, T], with the positions they have in their own texts; attention
stays within each text; the output is padded to [B, L, H] again, with zeros. All else in a
transformer works token by token, so that nothing else has to change.

Texts are sorted by length, so that those of similar length attend in one call. On a CPU there are
several packed sequences, one core each.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import Parameter, signature
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from encoders.opening.positions import position_offset
from encoders.unpadding.attention import ATTENTION
from encoders.unpadding.compiled import CompiledLayers
from encoders.unpadding.dropout import seeded
from encoders.unpadding.layout import TextLayout
from encoders.unpadding.packing import (
    cut_by_tokens,
    is_even,
    pack_texts,
    padded_output,
    round_up,
    without_rest,
)
from encoders.unpadding.parallel import parallel_map, parallel_map_with_gradients
from encoders.unpadding.parts import parts
from encoders.unpadding.transfer import at_least_one_token, mask_on_host, to_device

logger = logging.getLogger(__name__)

# Shapes: B texts, L tokens of the longest, T tokens of a packed sequence, H width.

# Where the texts of the current packed sequence begin, for the pooler. Each thread has its own.
_current = threading.local()


def unpad_inputs(model: PreTrainedModel, wanted: bool = True) -> bool:
    """Make ``model``'s backbone run on packed sequences from now on, if that is exact for it.

    This is tested: a small batch must give the same states with and without padding. If it is not
    ``wanted``, the model stays as it is; that it computes on padding is told all the same.

    Returns:
        Whether the model runs unpadded; if not, it is unchanged.
    """
    backbone: Any = model.base_model
    before = model.config._attn_implementation
    # Too short to tell: within a chunk of Llama 4's attention, as long as many a text.
    chunked = "chunked_attention" in (getattr(backbone.config, "layer_types", None) or ())
    takes = wanted and backbone._can_set_attn_implementation() and not chunked
    padded = _probe(backbone) if takes else None
    if padded is not None:
        model.set_attn_implementation(ATTENTION)
        unpadding = Unpadding(backbone)
        unpadded = _probe(backbone)
        if unpadded is not None and torch.allclose(padded, unpadded, atol=1e-4, rtol=1e-3):
            unpadding.draws_from_torch = _draws_from_torch(backbone)
            return True
        unpadding.remove()
        model.set_attn_implementation(before)
    name = model.config.model_type
    if wanted:
        logger.warning("%s cannot run without padding: it runs padded, which is slower", name)
    both, alone = _probe(backbone), _probe(backbone, alone=True)
    if both is None or alone is None or torch.allclose(both[:1, :3], alone, atol=1e-4, rtol=1e-3):
        return False
    logger.warning(
        "%s computes on padding, as in transformers: what it gives for a text depends on the "
        "longest text of its batch", name,
    )  # fmt: skip
    return False


def set_attention_dropout(model: PreTrainedModel, probability: float) -> None:
    """Drop attention weights with this probability in training, whatever the configuration says.

    Raises:
        ValueError: The model does not run unpadded: its attention is not computed here.
    """
    unpadding = getattr(model.base_model.forward, "__self__", None)
    if not isinstance(unpadding, Unpadding):
        raise ValueError(
            f"attention_dropout: {model.config.model_type} runs padded, and its attention is not "
            "computed here; leave it out"
        )
    unpadding.attention_dropout = probability


def compile_layers(model: PreTrainedModel, backend: str, mode: str | None = None) -> None:
    """Train ``model``, which runs unpadded, with ``torch.compile`` of these settings."""
    forward: Any = model.base_model.forward
    unpadding: Unpadding = forward.__self__
    unpadding.compiled = CompiledLayers(unpadding.backbone, backend, mode)


class PackedSequence(NamedTuple):
    """The states of texts that are concatenated without padding.

    Args:
        states: Of the last layer, [T, H].
        texts: The index of each text in its batch.
        lengths: Tokens of each text.
        layers: States of all layers, [1, T, H] each, where the model's configuration has
            ``output_hidden_states``.
    """

    states: Tensor
    texts: list[int]
    lengths: Tensor
    layers: Sequence[Tensor] | None = None


class Unpadding:
    """Replaces a backbone's ``forward``; its hook makes a pooler find each text's first token.

    Args:
        backbone: A model whose attention goes through transformers' ``AttentionInterface``.
    """

    def __init__(self, backbone: PreTrainedModel) -> None:
        self.backbone: Any = backbone
        self.padded_forward: Callable[..., Any] = backbone.forward
        self.parameters = signature(backbone.forward).parameters
        self.open = any(p.kind is Parameter.VAR_KEYWORD for p in self.parameters.values())
        # RoBERTa and similar models count positions from their padding id, and not at such tokens.
        self.padding_id = position_offset(backbone) - 1
        self.attention_dropout: float | None = None  # in training; None: the layers' own
        self.compiled: CompiledLayers | None = None
        self.draws_from_torch = True  # in training
        backbone.forward = self.forward
        pooler = getattr(backbone, "pooler", None)
        self.hook = None
        if isinstance(pooler, nn.Module):
            # A pooler reads ``states[:, 0]``: give it the first tokens as [texts, 1, H].
            self.hook = pooler.register_forward_pre_hook(
                lambda _, args: (args[0][0, _current.starts, None], *args[1:])
            )

    def remove(self) -> None:
        """Restore the backbone."""
        del self.backbone.forward
        if self.hook is not None:
            self.hook.remove()

    def forward(self, *args: Any, pad_output: bool = True, **kwargs: Any) -> Any:
        """The backbone's signature and output; ``pad_output=False``: ``PackedSequence`` objects."""
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        inputs = {name: value for name, value in given.items() if value is not None}
        ids = inputs.pop("input_ids")  # [B, L]
        mask = at_least_one_token(mask_on_host(ids, inputs.pop("attention_mask", None)))
        lengths = mask.sum(dim=1).tolist()
        packs, cores = self._pack(lengths, ids.device)
        order = [text for pack in packs for text in pack]
        text_of, place_of = mask[order].nonzero(as_tuple=True)
        # Where each packed token stands in the batch, flattened to [B * L], and in its text.
        places = torch.tensor(order)[text_of] * ids.shape[1] + place_of
        positions = (mask.cumsum(dim=1) - 1).flatten()[places]
        index, positions = to_device(torch.stack([places, positions]), ids.device)
        if self.padding_id >= 0:
            counted = ids != self.padding_id
            positions = (counted.cumsum(dim=1) * counted + self.padding_id).flatten()[index]
        tokens = [sum(lengths[text] for text in pack) for pack in packs]

        # One look-up for all tokens: the gradient of each is as large as the whole vocabulary.
        embedded = self.backbone.get_input_embeddings()(ids.flatten()[index])[None]
        varying = {"position_ids": positions[None].split(tokens, dim=1)}  # [1, T] each
        if "token_type_ids" in inputs:
            types = inputs.pop("token_type_ids").flatten()[index]
            varying["token_type_ids"] = types[None].split(tokens, dim=1)
        if "use_cache" in self.parameters or self.open:
            inputs["use_cache"] = False

        training = torch.is_grad_enabled() or self.backbone.training
        reuses_kernels = ids.device.type == "cpu" and not training

        def run(at: int, embeddings: Tensor) -> Any:
            own = {name: values[at] for name, values in varying.items()}
            own["embeddings"] = embeddings
            if reuses_kernels:
                own = {name: round_up(values) for name, values in own.items()}
            found = self._run([lengths[text] for text in packs[at]], **own, **inputs)
            return without_rest(found, tokens[at]) if reuses_kernels else found

        if self.compiled is not None and torch.is_grad_enabled() and not embedded.requires_grad:
            embedded.requires_grad_()  # as those that graphs are made for
        split = embedded.split(tokens, dim=1)
        if self.compiled is not None and self.backbone.training:
            self.compiled.prepare(partial(self._run, **inputs), split, varying)
        if cores > 1 and is_even(tokens, cores):
            outputs = self._parallel(run, split)
        else:
            outputs = list(map(run, range(len(packs)), split))
        if pad_output:
            return padded_output(outputs, index, order, ids.shape)
        return [
            PackedSequence(
                output.last_hidden_state[0],
                pack,
                to_device(torch.tensor([lengths[text] for text in pack]), ids.device),
                getattr(output, "hidden_states", None),
            )
            for output, pack in zip(outputs, packs, strict=True)
        ]

    def _run(self, lengths: list[int], embeddings: Tensor, **inputs: Any) -> Any:
        """One packed sequence, [1, T, H]; ``inputs`` are [1, T], or settings."""
        dropout = self.attention_dropout if self.backbone.training else None
        rest = embeddings.shape[1] - sum(lengths)
        layout = TextLayout(lengths, embeddings.device, dropout, rest)
        _current.starts = layout.bounds[:-1]
        return self.padded_forward(**inputs, inputs_embeds=embeddings, layout=layout)

    def _parallel(self, run: Callable[[int, Tensor], Any], given: tuple[Tensor, ...]) -> list[Any]:
        """``run`` for each packed sequence, on a core of its own."""
        # A random generator for each, so that draws do not depend on which thread is first.
        seeds = torch.randint(2**63 - 1, (len(given),)).tolist() if self.backbone.training else None

        def compute(at: int, embeddings: Tensor) -> Any:
            with nullcontext() if seeds is None else seeded(seeds[at]):
                return run(at, embeddings)

        if not torch.is_grad_enabled():
            return parallel_map(lambda at: compute(at, given[at]), range(len(given)))
        words = self.backbone.get_input_embeddings().weight  # looked up before
        weights = [p for p in self.backbone.parameters() if p.requires_grad and p is not words]
        return parallel_map_with_gradients(compute, given, weights)

    def _pack(self, lengths: list[int], device: torch.device) -> tuple[list[list[int]], int]:
        """The texts of each packed sequence, by index, and how many sequences may run in parallel.

        On a CPU that is one per core. It is one, where FSDP shards the weights (its processes must
        gather them in one order), where dropout draws from a generator that all threads share, so
        that their order would matter, and for compiled layers, whose kernels hold Python's lock.
        """
        # Also in the first pass of the gradient cache, which computes no gradients: it must pack
        # the batch as the second pass does, or dropout would differ there.
        training = torch.is_grad_enabled() or self.backbone.training
        sharded = any(isinstance(module, FSDPModule) for module in self.backbone.modules())
        shared = self.compiled is not None or self._shares_a_generator()
        alone = sharded or not parts.worker_threads or (training and shared)
        cores = 1 if device.type != "cpu" or alone else torch.get_num_threads()
        if device.type != "cpu" or not parts.several_sequences:
            return cut_by_tokens(lengths, 2**62), cores
        return pack_texts(lengths, self.backbone.config.hidden_size, cores, training), cores

    def _shares_a_generator(self) -> bool:
        """Whether random numbers come from torch's dropout, or are drawn again to recompute."""
        if self.draws_from_torch or not (parts.fast_dropout and parts.grouped_attention):
            return True
        return bool(self.backbone.is_activation_checkpointing) or any(
            type(module) is nn.Dropout and module.p > 0 and module.training
            for module in self.backbone.modules()
        )


def _draws_from_torch(backbone: Any) -> bool:
    """Whether training draws from torch's generator, as ``nn.functional.dropout`` does."""
    with seeded(0), torch.random.fork_rng([]):
        before = torch.get_rng_state()
        _probe(backbone, in_training=True)
        return not torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def _probe(backbone: Any, in_training: bool = False, alone: bool = False) -> Tensor | None:
    """States of 3 and of 5 tokens, 0 at padding; None where the model fails on them."""
    training = backbone.training
    backbone.train(in_training)
    device = next(backbone.parameters()).device
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], device=device)
    try:
        ids = torch.arange(10, device=device).view(2, 5) * 7 % (backbone.config.vocab_size - 5) + 5
        ids = ids.masked_fill(mask == 0, getattr(backbone.config, "pad_token_id", None) or 0)
        if alone:  # the first, without padding
            ids, mask = ids[:1, :3], mask[:1, :3]
        states: Tensor = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError,
            AssertionError) as error:  # fmt: skip
        logger.debug("unpadding %s: %s", backbone.config.model_type, error)
        return None
    finally:
        backbone.train(training)
    return states * mask[..., None]
