# syntax=docker/dockerfile:1
# The server, scripts/serve.py, and scripts/index.py (docs/guide/production/deploying.md):
#   docker build --target cpu --tag tandem:cpu .
#   docker build --target cuda --tag tandem:cuda .
# With a model in the image instead of one mounted at /model:
#   docker build --target cpu --tag tandem:cpu --build-arg MODEL=outputs/embedding_contrastive .

FROM python:3.11-slim-bookworm AS python
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app

FROM python AS dependencies
RUN python -m venv /opt/venv
# No code yet: a change of the code installs nothing anew. The editable install points to /app.
COPY setup.cfg pyproject.toml constraints.txt ./

FROM dependencies AS dependencies-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX" torch \
    && pip install --constraint constraints.txt --editable '.[onnx,otel,postgres,sentencepiece]'

# The wheel on PyPI is the CUDA build, with CUDA's libraries; the host has the driver.
FROM dependencies AS dependencies-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --editable '.[onnx,otel,postgres,sentencepiece]'

FROM python AS server
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tandem
# The root file system may be read-only, but for /tmp.
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
COPY LICENSE ./
COPY common common
COPY encoders encoders
COPY evaluation evaluation
COPY loaders loaders
COPY serving serving
COPY stores stores
COPY scripts/index.py scripts/serve.py scripts/
ARG MODEL=deploy/model
# The weights may be readable by their owner alone.
COPY --chown=10001:10001 ${MODEL} /model
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=5m --start-interval=2s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('HEAD', '/health'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "scripts/serve.py", "--host", "0.0.0.0", "--port", "8000", "--log_json"]
CMD ["--model", "/model"]

FROM server AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --link --from=dependencies-cuda /opt/venv /opt/venv

# The last one is what a build without --target gives.
FROM server AS cpu
COPY --link --from=dependencies-cpu /opt/venv /opt/venv
