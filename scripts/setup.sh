#!/bin/sh
# Makes this checkout ready: distribution packages that are missing, and .venv from hashed requirements.
# Usage: scripts/setup.sh up|dev     (dev adds what tests, lint and benchmarks need)
set -eu
cd "$(dirname "$0")/.."
kind=${1:-up}
say() { echo "moorage: $*"; }
fail() { echo "moorage: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "this needs root, because it makes namespaces, cgroups and mounts: run it with sudo."

# Only what is missing is installed. scripts/packages.tsv has a program, its package and the reason on each line.
missing=''
want() { say "$1 is missing ($2): installing it."; missing="$missing $1"; }
# A program on PATH, or a path, or one of several as in /a/b|/c/b.
is_here() {
    case $1 in
        *"|"*) is_here "${1%%"|"*}" || is_here "${1#*"|"}" ;;
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}
# Of a|b the first that the distribution has, the last where it says nothing.
offered() {
    left=$1
    while [ "$left" != "${left#*"|"}" ] && [ -z "$(apt-cache show "${left%%"|"*}" 2>/dev/null)" ]; do left=${left#*"|"}; done
    echo "${left%%"|"*}"
}
while IFS='	' read -r needs program package why; do
    case $needs in up | "$kind") ;; *) continue ;; esac
    is_here "$program" || want "$package" "$why"
done <scripts/packages.tsv
if [ ! -x .venv/bin/python ] && why=$(sh scripts/find_python.sh venv) && [ -n "$why" ]; then
    want python3-venv "$why"
fi
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "these packages are missing and apt-get is not here to install them:$missing"
    log=$(mktemp)
    install() {
        apt-get update -qq || return 1
        packages=''
        for name in $missing; do packages="$packages $(offered "$name")"; done
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    }
    if ! install >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "installing$missing failed, see above; install them by hand and run this again."
    fi
    rm -f "$log"
fi

# Compiled here and not by the launcher: one that compiles its own modules is left with scattered memory, and every monitor
# it forks copies 160 kB more of it.
compile() { .venv/bin/python -m compileall -q runtime portal worker scripts; }

stamp=.venv/.moorage-$kind
digest=$(sha256sum "requirements/$kind.txt" | cut -d' ' -f1)
[ "$kind" = up ] && [ -f .venv/.moorage-dev ] && [ "$(cat .venv/.moorage-dev)" = "$(sha256sum requirements/dev.txt | cut -d' ' -f1)" ] && compile && exit 0
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ] && compile 2>/dev/null && exit 0
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    python=$(sh scripts/find_python.sh) || exit 1
    say "making .venv with $("$python" --version)."
    rm -rf .venv
    "$python" -m venv .venv || fail "making .venv with $python failed: install its venv module (on Debian: python3-venv)."
fi
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null 2>&1 || true
say "installing requirements/$kind.txt."
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$kind.txt" ||
    fail "installing requirements/$kind.txt failed, see above."
# The command line is a package of its own; tests run it from here.
if [ "$kind" = dev ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable ./cli ||
        fail "installing ./cli failed, see above."
fi
echo "$digest" >"$stamp"
compile
