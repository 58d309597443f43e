# The connector alone; the labeling tool and the bucket run elsewhere. Everything that is installed is pinned
# by the files in requirements/, with hashes. See docs/operations.md.

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY requirements/uv.txt requirements/run.txt requirements/build.txt requirements/
RUN python -m pip install --no-cache-dir --require-hashes -r requirements/uv.txt \
    && python -m venv --without-pip /opt/connector \
    && uv pip sync --no-cache --compile-bytecode --python /opt/connector/bin/python \
        --require-hashes requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY connector connector
RUN uv build --no-cache --wheel --require-hashes --build-constraints requirements/build.txt --out-dir /wheel . \
    && uv pip install --no-cache --no-deps --compile-bytecode --python /opt/connector/bin/python /wheel/*.whl

FROM python:3.11.13-slim-bookworm
RUN useradd --system --no-log-init --uid 10001 --create-home --home-dir /data connector
COPY --from=build /opt/connector /opt/connector
ENV PATH=/opt/connector/bin:$PATH \
    CONNECTOR_SERVE__HOST=0.0.0.0
# connector.toml, the SQLite files, and the label store where it is a folder.
WORKDIR /data
VOLUME /data
USER 10001
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/healthz', timeout=5)"]
ENTRYPOINT ["connector"]
CMD ["serve"]
