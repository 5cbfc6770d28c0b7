"""Training steps of BERT-base against sentence-transformers."""

import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks.on_gpu.rows import FAILED, Given, Rows, peak_memory, print_rows
from benchmarks.speed.contestants import sentence_transformers, tandem
from benchmarks.speed.rates import forward_flops, lengths
from benchmarks.speed.turns import TANDEM, THEIRS

MAX_LENGTH = 256
COLUMNS = ["", "task", "precision", "ms a step", "against sentence-transformers (sdpa)",
           "of the product rate", "GPU idle", "memory, GiB"]  # fmt: skip


class Line(NamedTuple):
    """A row of the table."""

    who: str
    task: str
    bf16: bool
    model: str = "bert"
    attention: str = "sdpa"
    settings: tuple[tuple[str, Any], ...] = ()

    def names(self) -> list[str]:
        """How it is named."""
        more = [self.attention] if self.who == THEIRS else []
        more += ["without dropout"] if self.model != "bert" else []
        more += [f"{key} {value}" for key, value in self.settings]
        return [", ".join([self.who, *more]), self.task, "bf16" if self.bf16 else "fp32"]


def lines(tiny: bool) -> list[Line]:
    """What is measured. To compile takes a minute on a CPU: not of a tiny model."""
    compile_it = ("torch_compile", True)
    compiled = [(compile_it,), (("unpad_inputs", False), compile_it)]
    found = []
    for task in ("contrastive",) if tiny else ("contrastive", "reranker"):
        found += [Line(THEIRS, task, True), Line(TANDEM, task, True)]
        if find_spec("flash_attn"):
            found.append(Line(THEIRS, task, True, attention="flash_attention_2"))
    found += [
        Line(TANDEM, "contrastive", True, "bert_without_dropout"),
        *(Line(TANDEM, "contrastive", True, settings=each) for each in compiled if not tiny),
        Line(THEIRS, "contrastive", False),
        Line(TANDEM, "contrastive", False),
    ]
    return found


def training(given: Given) -> Rows:
    """Medians over two rounds, in which all take turns."""
    steps, batch = (2, 8) if given.tiny else (6, 256)
    rows = given.pairs(batch * (steps + 2))
    seconds: dict[Line, list[float]] = defaultdict(list)
    idle: dict[Line, list[float]] = defaultdict(list)
    memory, failed = {}, {}
    for _ in range(1 if given.tiny else 2):
        for line in lines(given.tiny):
            if line in failed:
                continue
            try:
                times = train(line, given, rows, batch, steps)
            except Exception as error:
                failed[line] = f"{type(error).__name__}: {str(error)[:200]}"
            else:
                seconds[line] += times.seconds
                idle[line] += times.idle
            memory[line] = peak_memory()
    rates = {bf16: given.rate(bf16) for bf16 in (False, True)}
    yield COLUMNS
    for line in lines(given.tiny):
        if line in failed:
            yield [*line.names(), FAILED, failed[line]]
            continue
        taken = statistics.median(seconds[line])
        theirs = statistics.median(seconds.get(Line(THEIRS, line.task, line.bf16), [float("nan")]))
        about = Namespace(
            model=str(given.folder / line.model), task=line.task, max_length=MAX_LENGTH
        )
        flops = 3 * forward_flops(about, lengths(about, rows)) * batch / len(rows)
        share = f"{statistics.median(idle[line]):.0%}" if idle[line] else ""
        yield [*line.names(), f"{1000 * taken:.0f}", f"{theirs / taken:.2f} x",
               f"{flops / taken / rates[line.bf16]:.0%}", share, memory[line]]  # fmt: skip


class StepTimes(TrainerCallback):
    """Seconds of the steps after the first two, and in the last ones the GPU's idle share."""

    def __init__(self, steps: int) -> None:
        self.profiled = steps - 2  # from the end of this step on
        self.begun = 0.0
        self.seconds: list[float] = []
        self.idle: list[float] = []
        self.profile: Any = None

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step > 2 and self.profile is None:
            self.seconds.append(now - self.begun)
        if state.global_step == state.max_steps and self.profile is not None:
            self.profile.stop()
            self.idle.append(1 - busy(self.profile) / (now - self.begun))
        if torch.cuda.is_available() and state.global_step == self.profiled:
            self.profile = profile(activities=[ProfilerActivity.CUDA])
            self.profile.start()
        if self.profile is None or state.global_step == self.profiled:
            self.begun = time.perf_counter()


def busy(profiled: Any) -> float:
    """Seconds in which a kernel ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == DeviceType.CUDA
    )
    total, end = 0.0, 0.0
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e6


def train(
    line: Line, given: Given, rows: list[dict[str, Any]], batch: int, steps: int
) -> StepTimes:
    """Some steps more than are timed."""
    settings: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(dir=given.folder),
        "per_device_train_batch_size": batch,
        "max_steps": steps + 2,
        "bf16": line.bf16,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": given.device == "cpu",
        **dict(line.settings),
    }
    folder = str(given.folder / line.model)
    if line.who == TANDEM:
        trainer = tandem(line.task, folder, rows, MAX_LENGTH, settings)
    else:
        trainer = sentence_transformers(
            line.task, folder, rows, MAX_LENGTH, settings, line.attention
        )
    times = StepTimes(steps + 2)
    trainer.add_callback(times)
    trainer.train()
    return times


if __name__ == "__main__":
    print_rows(training)
