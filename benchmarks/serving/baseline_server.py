"""The baseline server: FastAPI and sentence-transformers in a ``def`` handler.

python benchmarks/serving/baseline_server.py embed FOLDER PORT     # or: rerank
python benchmarks/serving/baseline_server.py embed FOLDER PORT bfloat16
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder, SentenceTransformer


class Embed(BaseModel):
    """One text."""

    text: str


class Rerank(BaseModel):
    """A query and its documents."""

    query: str
    documents: list[str]


def main(task: str, folder: str, port: str, dtype: str = "float32") -> None:
    """Serve until killed."""
    app = FastAPI()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kwargs = {"dtype": dtype}
    if task == "embed":
        embedder = SentenceTransformer(folder, device=device, model_kwargs=kwargs)

        @app.post("/embed")
        def embed(body: Embed) -> dict[str, list[float]]:
            return {"embedding": embedder.encode(body.text, show_progress_bar=False).tolist()}

    else:
        reranker = CrossEncoder(folder, device=device, model_kwargs=kwargs)

        @app.post("/rerank")
        def rerank(body: Rerank) -> dict[str, list[float]]:
            pairs = [(body.query, document) for document in body.documents]
            return {"scores": reranker.predict(pairs, show_progress_bar=False).tolist()}

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(app, port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
