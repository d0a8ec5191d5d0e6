# The gateway: no torch, no compiler, no root. Build from the project's folder: docker build -f docker/gateway.Dockerfile .
FROM python:3.11.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gateway
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY clients/python/patchcore_client clients/python/patchcore_client
COPY command_line command_line
COPY gateway gateway
COPY postprocess postprocess
RUN /opt/gateway/bin/pip install -c constraints.txt '.[triton,bucket]' \
  && if /opt/gateway/bin/python -c 'import torch' 2>/dev/null; then echo 'torch does not belong here' >&2; exit 1; fi

FROM python:3.11.11-slim-bookworm
RUN useradd --uid 10001 --create-home gateway \
  && install -d -o gateway -g gateway /data /data/models /data/cache /data/state
COPY --from=build /opt/gateway /opt/gateway
USER 10001
WORKDIR /data
ENV PATH=/opt/gateway/bin:$PATH \
  PYTHONUNBUFFERED=1 \
  GATEWAY_HOST=0.0.0.0 \
  GATEWAY_PORT=8080 \
  GATEWAY_ENGINE=triton \
  GATEWAY_MODELS_DIR=/data/models \
  GATEWAY_CACHE_DIR=/data/cache \
  GATEWAY_STATE_DIR=/data/state
# Whatever a gateway writes, so that the rest can be read-only.
VOLUME ["/data/models", "/data/cache", "/data/state"]
EXPOSE 8080
# Checks that the gateway lives, not that it is ready: a restart of the gateway does not help when Triton is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['GATEWAY_PORT'] + '/health', timeout=4)"]
CMD ["python", "-m", "gateway"]
