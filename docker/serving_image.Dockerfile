# The engine and its OpenAI-compatible server, for a CPU or for NVIDIA GPUs. From the repository's root:
#
#   docker build -f docker/serving_image.Dockerfile -t slipway-serve:cpu .
#   docker build -f docker/serving_image.Dockerfile -t slipway-serve:cuda --build-arg TORCH_BACKEND=cuda .
#
# The base needs apt and Python 3.11 to 3.13. CUDA's libraries come with torch's wheels, so the base needs none of them.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
ARG TORCH_BACKEND=cpu
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates g++ python3 python3-venv >/dev/null
COPY scripts/install-torch /opt/slipway/scripts/
RUN python3 -m venv /opt/slipway/venv \
    && /opt/slipway/venv/bin/pip install -q uv==0.13.9 \
    && /opt/slipway/scripts/install-torch /opt/slipway/venv "${TORCH_BACKEND}" \
    && rm -rf /opt/slipway/venv/lib/python3*/site-packages/torch/include
COPY docker/serving_image.lock /opt/slipway/
RUN /opt/slipway/venv/bin/uv pip install -q --python /opt/slipway/venv --no-deps -r /opt/slipway/serving_image.lock
COPY pyproject.toml README.md /opt/slipway/src/
# Of the control plane, slipway-agent's part is used: it brings weights to where no storage is shared.
COPY control_plane /opt/slipway/src/control_plane
COPY serving_image /opt/slipway/src/serving_image
COPY kernels /opt/slipway/src/kernels
COPY starter/model /opt/slipway/src/starter/model
# The C++ kernels are compiled here: what is shipped needs no compiler for them.
RUN /opt/slipway/venv/bin/uv pip install -q --python /opt/slipway/venv --no-deps -e /opt/slipway/src \
    && cd /opt/slipway/src && /opt/slipway/venv/bin/python -m kernels.native \
    && /opt/slipway/venv/bin/python -m compileall -q /opt/slipway/src \
    && /opt/slipway/venv/bin/uv pip uninstall -q --python /opt/slipway/venv uv pip

FROM ${BASE_IMAGE}
ARG TORCH_BACKEND=cpu
# On a GPU Triton compiles each kernel's launcher when it is first used, with a C compiler and Python's headers.
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates python3 \
        $([ "${TORCH_BACKEND}" = cpu ] || echo gcc libc6-dev python3-dev) >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /tmp slipway
COPY --from=build /opt/slipway/venv /opt/slipway/venv
COPY --from=build /opt/slipway/src /opt/slipway/src
# The root may be read-only: everything that is written goes to /tmp.
ENV PATH=/opt/slipway/venv/bin:$PATH \
    HOME=/tmp XDG_CACHE_HOME=/tmp/cache TRITON_CACHE_DIR=/tmp/triton \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["slipway-serve"]
