#!/bin/sh
# Says in one sentence what this machine lacks to build and test vrex; silent when nothing is missing.
# Usage: check_tools.sh [PYTHON]
python=${1:-python3}

fail() {
    echo "vrex: $1" >&2
    exit 1
}

for tool in g++ make; do
    command -v "$tool" >/dev/null 2>&1 ||
        fail "$tool is missing: install g++ and make (Debian, Ubuntu: apt-get install g++ make)."
done
command -v "$python" >/dev/null 2>&1 ||
    fail "$python is missing: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$("$python" --version 2>&1 | head -n 1) ($python) is too old: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python lacks the venv module: install it (Debian, Ubuntu: apt-get install python3-venv)."
