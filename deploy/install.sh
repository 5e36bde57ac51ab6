#!/bin/sh
# install.sh VENV REQUIREMENTS: make VENV with exactly these pinned packages and this checkout.
# Uses uv where it is present, gets it from the pinned requirements' own index where it is not,
# and falls back to pip.
set -eu
venv=$1
requirements=$2
python=${PYTHON:-python3}
uv_version=0.13.8

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
if command -v uv >/dev/null 2>&1; then
  uv=uv
elif [ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet "uv==$uv_version" 2>/dev/null; then
  uv=$venv/bin/uv
else
  uv=
fi
if [ -n "$uv" ] && "$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode \
  --require-hashes -r "$requirements"; then
  :
else
  "$venv/bin/python" -m pip install --quiet --require-hashes -r "$requirements"
fi
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
