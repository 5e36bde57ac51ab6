# The site agent alone: the base install, no Django, no solver.
# Runs as an ordinary user on a read-only root; it writes /var/lib/hanse and /tmp.
#
#   docker build --file deploy/container/agent.Dockerfile --tag hanse-agent:0.1.0 .
#
# With --build-arg REQUIREMENTS=requirements/agent.txt also metrics and the look at GPUs.
FROM python:3.12.11-slim-bookworm AS build
ARG REQUIREMENTS=requirements/base.txt
WORKDIR /src
COPY requirements requirements
RUN python -m venv /build \
 && /build/bin/pip install --no-cache-dir hatchling==1.33.0 \
 && python -m venv --without-pip /opt/hanse \
 && /build/bin/pip --python /opt/hanse/bin/python install --no-cache-dir --require-hashes -r "$REQUIREMENTS"
COPY pyproject.toml README.md ./
COPY economics economics
COPY federation federation
COPY broker broker
COPY agents agents
COPY hanse hanse
RUN /build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/hanse/bin/python install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.12.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/hanse --create-home --shell /usr/sbin/nologin hanse \
 && chmod 0700 /var/lib/hanse
COPY --from=build /opt/hanse /opt/hanse
ENV PATH=/opt/hanse/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/hanse
VOLUME /var/lib/hanse
ENTRYPOINT ["hanse", "agent"]
CMD ["run", "--config", "/etc/hanse/agent.yaml"]
