"""The launch files: accelerate reads them, and two of them start the processes they promise."""

import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))

PROBE = """
from pathlib import Path
import torch
from transformers import TrainingArguments
args = TrainingArguments({output!r}, use_cpu=True, bf16={bf16}, report_to="none")
Path(f"{output}-{{args.process_index}}").write_text(f"{{args.world_size}} {{args.mixed_precision}}")
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_it(file: Path) -> None:
    config = load_config_from_file(str(file))
    assert config.num_processes >= 1
    assert config.mixed_precision is None, "precision belongs to the recipe"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_opens_with_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# accelerate launch --config_file configs/accelerate/" + file.name)


def test_fsdp_is_version_2_and_saves_one_file() -> None:
    fsdp = load_config_from_file(str(FOLDER / "fsdp2.yaml")).fsdp_config
    assert fsdp["fsdp_version"] == 2
    assert fsdp["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"
    assert fsdp["fsdp_state_dict_type"] == "FULL_STATE_DICT"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bf16", "expected"),
    [("one_process", False, ["1 no"]), ("two_cpu_processes", True, ["2 bf16", "2 bf16"])],
)
def test_it_starts_its_processes_and_leaves_the_precision_alone(
    name: str, bf16: bool, expected: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "probe.py"
    script.write_text(PROBE.format(output=str(tmp_path / "rank"), bf16=bf16), encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command += ["--config_file", str(FOLDER / f"{name}.yaml"), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [file.read_text() for file in sorted(tmp_path.glob("rank-*"))] == expected
