"""Off switches for the parts of unpadding, to find out which one a suspicious result comes from.

    from encoders.unpadding import parts
    parts.grouped_attention = False

Results are the same with any of them off, up to rounding and up to which values dropout draws; only
the speed differs. (The recipe key ``unpad_inputs: false`` does without unpadding altogether.)
"""

from dataclasses import dataclass


@dataclass
class Parts:
    """Which parts are on. All but ``fast_dropout`` take effect at the next forward.

    Args:
        several_sequences: On a CPU, pack a batch into several sequences; off: into one.
        worker_threads: Run packed sequences in parallel, on one core each; off: one after another,
            each on all cores.
        fast_dropout: Draw dropout masks with NumPy's generator on a CPU. Takes effect when a model
            is opened; off: torch's dropout (which also keeps training on one thread at a time).
        grouped_attention: Attend in groups of texts of similar length, on a CPU in a kernel of our
            own for training; off: ``scaled_dot_product_attention`` on one text at a time.
    """

    several_sequences: bool = True
    worker_threads: bool = True
    fast_dropout: bool = True
    grouped_attention: bool = True


parts = Parts()
