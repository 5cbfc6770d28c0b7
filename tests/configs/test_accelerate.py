"""The launch files: accelerate reads them.

That they start the processes they promise is seen in tests/scripts/train/test_launch.py and
tests/trainers/distributed.
"""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


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
