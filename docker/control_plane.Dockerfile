# The control plane: pages, REST API, gateway, worker, scheduler. From the repository's root:
#
#   docker build -f docker/control_plane.Dockerfile -t slipway:latest .
#
# One image for every role: `slipway web`, `gateway`, `worker`, `beat`, `migrate`. No model library is in it.
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates nodejs npm python3 python3-venv >/dev/null
RUN python3 -m venv /opt/slipway/venv && /opt/slipway/venv/bin/pip install -q uv==0.13.9
COPY docker/control_plane.lock /opt/slipway/
RUN /opt/slipway/venv/bin/uv pip install -q --python /opt/slipway/venv --no-deps -r /opt/slipway/control_plane.lock
COPY web /opt/slipway/src/web
RUN cd /opt/slipway/src/web && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build && rm -rf node_modules
COPY pyproject.toml README.md /opt/slipway/src/
COPY control_plane /opt/slipway/src/control_plane
COPY migrations /opt/slipway/src/migrations
COPY starter/model /opt/slipway/src/starter/model
RUN /opt/slipway/venv/bin/uv pip install -q --python /opt/slipway/venv --no-deps -e /opt/slipway/src \
    && /opt/slipway/venv/bin/python -m compileall -q /opt/slipway/src \
    && /opt/slipway/venv/bin/uv pip uninstall -q --python /opt/slipway/venv uv pip

FROM ${BASE_IMAGE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates python3 >/dev/null \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/slipway slipway
COPY --from=build /opt/slipway/venv /opt/slipway/venv
COPY --from=build /opt/slipway/src /opt/slipway/src
ENV PATH=/opt/slipway/venv/bin:$PATH HOME=/var/lib/slipway SLIPWAY_DATA_DIR=/var/lib/slipway/data \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /var/lib/slipway
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["slipway"]
CMD ["web", "--host", "0.0.0.0"]
