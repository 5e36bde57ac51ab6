#!/bin/sh
# Pin every dependency with its hashes, for all supported Pythons, naming no host.
set -eu
uv=$(command -v uv || echo .venv/bin/uv)
lock() {
  "$uv" pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet "$@"
}
lock --extra broker --group dev -o requirements/dev.txt
lock --extra broker -c requirements/dev.txt -o requirements/broker.txt
lock --group test --group build -c requirements/dev.txt -o requirements/base-test.txt
lock -c requirements/dev.txt -o requirements/base.txt
lock --extra metrics --extra gpu -c requirements/dev.txt -o requirements/agent.txt
"$uv" pip compile --group ray --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet -o requirements/ray.txt
