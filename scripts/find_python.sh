#!/bin/sh
# Prints the path of a Python >= 3.12 that really runs. A name on PATH may be a version manager's shim that
# refuses to start, so each candidate is run, and only what it says of itself is believed.
# Usage: scripts/find_python.sh [venv]     (venv: prints why python3-venv must be installed first, or nothing)
set -u
cd "${0%/*}/.."
test_line='import sys; sys.version_info >= (3, 12) or sys.exit(1); import venv, ensurepip, ssl, sqlite3, ctypes; print(sys.executable)'
without_ensurepip='import sys; sys.version_info >= (3, 12) or sys.exit(1)
try: import ensurepip
except ImportError: print("Python %d.%d" % sys.version_info[:2])'

each() { # every file of these names on PATH: the first may be the shim that refuses
    for name in "$@"; do
        old_ifs=$IFS; IFS=:
        for folder in $PATH; do [ -x "$folder/$name" ] && echo "$folder/$name"; done
        IFS=$old_ifs
    done
}

installed() {
    for candidate in ${MOORAGE_PYTHON:-} $(each python3.13 python3.14 python3.12 python3) \
        "$HOME"/.pyenv/versions/3.13*/bin/python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3 /usr/local/bin/python3 /opt/python*/bin/python3; do
        found=$("$candidate" -c "$test_line" 2>/dev/null) && [ -x "$found" ] && { echo "$found"; return; }
    done
    return 1
}

has_uv() {
    for uv in uv "$HOME/.local/bin/uv" .uv/bin/uv; do "$uv" --version >/dev/null 2>&1 && return; done
    return 1
}

why_venv() { # Debian's python3 comes without ensurepip; .venv cannot be made without it, nor the one uv is put into
    installed >/dev/null && return
    for python in $(each python3); do
        found=$("$python" -c "$without_ensurepip" 2>/dev/null) && [ -n "$found" ] && { echo "$found cannot make .venv without it"; return; }
    done
    has_uv && return
    for python in $(each python3); do "$python" -c 'import venv, ensurepip' 2>/dev/null && return; done
    echo "no Python here is 3.12 or newer, and it is needed to fetch one"
}

own_uv() { # in a folder of its own: Debian lets pip install nothing beside its packages
    for python in $(each python3); do
        "$python" -m venv --clear .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt && return
    done >/dev/null 2>&1
    return 1
}

[ "${1:-}" = venv ] && { why_venv; exit 0; }
installed && exit 0
if has_uv || { echo "moorage: no Python here is 3.12 or newer: fetching one with uv, which is put into .uv." >&2; own_uv; }; then
    for uv in uv "$HOME/.local/bin/uv" .uv/bin/uv; do
        "$uv" python install --quiet 3.13 >/dev/null 2>&1 || true
        found=$("$uv" python find --managed-python '>=3.12' 2>/dev/null) || continue
        found=$("$found" -c "$test_line" 2>/dev/null) && { echo "$found"; exit 0; }
    done
fi
echo "Moorage needs Python 3.12 or newer with venv, ssl and sqlite3, and found none that runs: install python3 and python3-venv of a newer distribution (or set MOORAGE_PYTHON to one)." >&2
exit 1
