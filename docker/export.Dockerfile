# Two images that write a model repository, mounted at /repository. Build from the project's folder:
#   docker build -f docker/export.Dockerfile --target export .     exports weights to ONNX (torch, no GPU)
#   docker build -f docker/export.Dockerfile --target tensorrt .   builds the plan, on the GPU that serves it
# tensorrt:26.11-py3 of NVIDIA's NGC, named with its registry: --build-arg TENSORRT_IMAGE=…
ARG TENSORRT_IMAGE=tensorrt:26.11-py3

FROM python:3.11.11-slim-bookworm AS export
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY clients/python/patchcore_client clients/python/patchcore_client
COPY command_line command_line
COPY evaluation evaluation
COPY export export
COPY gateway gateway
COPY postprocess postprocess
RUN pip install -c constraints.txt '.[export,int8,triton]' \
  && useradd --uid 10001 --create-home export \
  && install -d -o export -g export /repository
USER 10001
WORKDIR /home/export
VOLUME /repository
ENTRYPOINT ["python", "-m", "export", "--repository", "/repository"]
CMD ["--backend", "onnxruntime"]

# The release must be that of Triton's image in .env.example, since a plan loads only in the TensorRT that built it.
# hadolint ignore=DL3006
FROM ${TENSORRT_IMAGE} AS tensorrt
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_BREAK_SYSTEM_PACKAGES=1 PYTHONUNBUFFERED=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY clients/python/patchcore_client clients/python/patchcore_client
COPY command_line command_line
COPY export export
COPY gateway gateway
COPY postprocess postprocess
# Install only what the builder imports. The last line fails if TensorRT is missing or another version.
RUN pip install -c constraints.txt numpy onnx onnxruntime pydantic 'tritonclient[grpc]' \
  && pip install --no-deps . \
  && useradd --uid 10001 --create-home builder \
  && install -d -o builder -g builder /repository \
  && python3 -c 'import tensorrt, export.triton_tensorrt; assert tensorrt.__version__.split(".")[0] in ("10", "11"), tensorrt.__version__'
USER 10001
WORKDIR /home/builder
VOLUME /repository
ENTRYPOINT ["python3", "-m", "export.triton_config", "--repository", "/repository", "--backend", "tensorrt"]
