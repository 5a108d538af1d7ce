#!/bin/sh
# Prints the path of a Python >= 3.12 that really runs. A name on PATH may be a version manager's shim that
# refuses to start, so each candidate is run, and only what it says of itself is believed.
set -u
test_line='import sys; sys.version_info >= (3, 12) or sys.exit(1); import venv, ensurepip, ssl, sqlite3, ctypes; print(sys.executable)'
for candidate in ${MOORAGE_PYTHON:-} python3.13 python3.14 python3.12 python3 \
    "$HOME"/.pyenv/versions/3.13*/bin/python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3 /usr/local/bin/python3 /opt/python*/bin/python3; do
    found=$("$candidate" -c "$test_line" 2>/dev/null) && [ -x "$found" ] && { echo "$found"; exit 0; }
done
command -v uv >/dev/null 2>&1 || python3 -m pip install --quiet --user uv >/dev/null 2>&1 || true
for uv in uv "$HOME/.local/bin/uv"; do
    command -v "$uv" >/dev/null 2>&1 || continue
    "$uv" python install --quiet 3.13 >/dev/null 2>&1 || true
    found=$("$uv" python find --managed-python '>=3.12' 2>/dev/null) || continue
    found=$("$found" -c "$test_line" 2>/dev/null) && { echo "$found"; exit 0; }
done
echo "Moorage needs Python 3.12 or newer with venv, ssl and sqlite3, and found none that runs: install python3 and python3-venv of a newer distribution (or set MOORAGE_PYTHON to one)." >&2
exit 1
