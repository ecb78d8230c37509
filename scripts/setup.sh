#!/bin/sh
# Fills .venv with vrex (editable) and the given extra, once: a stamp remembers what the install came from.
# Usage: setup.sh PYTHON EXTRA
set -eu
python=$1
extra=$2
stamp=.venv/stamp-$extra
# The checkout's path is part of it: a virtual environment does not survive being moved.
wanted=$(pwd; cksum pyproject.toml constraints.txt)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c 'import vrex.sw' 2>/dev/null; then
    exit 0
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
echo "Installing vrex[$extra] into .venv (takes some minutes the first time)"
.venv/bin/python -m pip install -qq --disable-pip-version-check --progress-bar off \
    --constraint constraints.txt --editable ".[$extra]"
printf '%s\n' "$wanted" >"$stamp"
