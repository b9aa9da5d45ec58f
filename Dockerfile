# rotator in a container: no root, no shell needed, a read-only root filesystem.
# What is written goes to /var/lib/rotator (the state: it must outlive the container) and /run/rotator (the socket, outputs).

FROM python:3.13-slim AS build
WORKDIR /source
COPY requirements/build.txt requirements/run.txt requirements/kubernetes.txt requirements/
RUN python3 -m venv --without-pip /opt/rotator \
 && python3 -m venv /build \
 && /build/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/rotator/bin/python install --quiet --no-cache-dir --no-compile --require-hashes \
      -r requirements/run.txt -r requirements/kubernetes.txt
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY requirements/*.in requirements/
COPY rotator rotator
# Bytecode that names no times, so that one source makes one image.
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /wheel . \
 && /build/bin/pip --python /opt/rotator/bin/python install --quiet --no-compile --no-deps --no-index /wheel/*.whl \
 && /opt/rotator/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/rotator/lib

FROM python:3.13-slim
LABEL org.opencontainers.image.title="rotator" \
      org.opencontainers.image.description="Keeps OAuth 2.0 access tokens fresh and never loses a refresh token" \
      org.opencontainers.image.licenses="Apache-2.0"
# That Python comes without the bytecode of its library, and nobody may write any here later: without this line each start
# and each health check would compile the library anew.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash -x '/(ensurepip|idlelib|site-packages|test)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
RUN groupadd --gid 10001 rotator \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rotator \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/rotator \
 && install -d -o 10001 -g 10001 -m 0750 /run/rotator
COPY --from=build /opt/rotator /opt/rotator
ENV PATH=/opt/rotator/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    STATE_DIRECTORY=/var/lib/rotator \
    RUNTIME_DIRECTORY=/run/rotator
USER 10001:10001
EXPOSE 9774
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s CMD ["rotator", "health"]
ENTRYPOINT ["rotator"]
CMD ["run"]
