"""EmbedDocuments in Ray Data, as docs/guide/production/large_corpora.md shows it."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preparation.embedding.documents import EmbedDocuments
from tiny import TEXTS

PAGE = Path(__file__).resolve().parents[3] / "docs/guide/production/large_corpora.md"


# Ray warns of its own settings, and leaves files open.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_two_workers_of_ray_give_the_vectors_of_one_process(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only with the extra ray: pip install -c constraints.txt -e '.[ray]'."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    shards, output = tmp_path / "shards", tmp_path / "vectors"
    shards.mkdir()
    for shard in range(4):
        rows = [{"id": f"{shard}-{at}", "text": f"{TEXTS[at % 10]} {at}"} for at in range(50)]
        pq.write_table(pa.Table.from_pylist(rows), shards / f"{shard}.parquet")
    (code,) = re.findall(
        r"^<!-- code: ray -->\n```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S
    )
    for shown, own in (
        ("outputs/embedding_contrastive", tiny_bert),
        ('"data/corpus"', f"{str(shards)!r}, override_num_blocks=4"),
        ("batch_size=4096", "batch_size=50"),
        ("outputs/vectors", output),
    ):
        assert shown in code
        code = code.replace(shown, str(own))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=4, include_dashboard=False)
    try:
        exec(code, {})
    finally:
        ray.shutdown()
    found = pq.read_table(output)
    vectors = dict(zip(found["id"].to_pylist(), found["vector"].to_pylist(), strict=True))
    wanted = EmbedDocuments(str(tiny_bert))(pq.read_table(shards))
    assert len(vectors) == len(wanted) == 200
    ordered = [vectors[name] for name in wanted["id"].to_pylist()]
    np.testing.assert_allclose(ordered, wanted["vector"].to_pylist(), atol=1e-6)
