"""JSON files appear when they are complete."""

from pathlib import Path

import pytest

from common.json_files import read_json, write_json


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    write_json(file, {"名": 1})
    assert file.read_text(encoding="utf-8") == '{\n  "名": 1\n}\n'
    with pytest.raises(UnicodeEncodeError):
        write_json(file, {"half": "\ud800"})
    assert read_json(file) == {"名": 1}
