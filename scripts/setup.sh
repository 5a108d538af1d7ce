#!/bin/sh
# Makes this checkout ready: distribution packages that are missing, and .venv from hashed requirements.
# Usage: scripts/setup.sh up|dev     (dev adds what tests, lint and benchmarks need)
set -eu
cd "$(dirname "$0")/.."
kind=${1:-up}
say() { echo "moorage: $*"; }
fail() { echo "moorage: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "this needs root, because it makes namespaces, cgroups and mounts: run it with sudo."

# program<TAB>package<TAB>why. Only what is missing is installed.
wanted='haproxy	haproxy	the way in to portal and apps
nft	nftables	firewall and address translation of app networks
ip	iproute2	looking at links when something is wrong
mkfs.ext4	e2fsprogs	writable layers of a fixed size
setpriv	util-linux	ends children with their parent
tini-static	tini	process 1 of containers that are started with --init'
if [ "$kind" = dev ]; then
    wanted="$wanted
chromium	chromium	browser tests
busybox	busybox-static	the demo image
docker	docker.io	the command line that the engine is tested with
skopeo	skopeo	a peer that reads and writes images
umoci	umoci	a peer that writes OCI layouts
podman	podman	drives our OCI runtime in tests
/usr/lib/postgresql	postgresql	tests run on PostgreSQL too
qemu-system-x86_64	qemu-system-x86	a guest with unified cgroups
/usr/lib/qemu/virtiofsd	qemu-system-common	shares files with the guest
/usr/share/doc/linux-image-cloud-amd64	linux-image-cloud-amd64	the guest's kernel
modprobe	kmod	finding the guest's modules
cpio	cpio	the guest's first file system
zstd	zstd	test archives
curl	curl	tests talk to the API as a pipeline would
iperf3	iperf3	network rate tests
wrk	wrk	benchmarks ask apps by the thousand
git	git	lint looks at what is committed"
fi
if [ ! -x .venv/bin/python ] && why=$(sh scripts/find_python.sh venv) && [ -n "$why" ]; then
    wanted="$wanted
python3-venv	python3-venv	$why"
fi
missing=''
old_ifs=$IFS; IFS='
'
for row in $wanted; do
    program=${row%%	*}; rest=${row#*	}; package=${rest%%	*}; why=${rest#*	}
    case $program in
        /*) [ -e "$program" ] && continue ;;
        *) command -v "$program" >/dev/null 2>&1 && continue ;;
    esac
    say "$package is missing ($why): installing it."
    missing="$missing $package"
done
IFS=$old_ifs
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || fail "these packages are missing and apt-get is not here to install them:$missing"
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
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
echo "$digest" >"$stamp"
compile
