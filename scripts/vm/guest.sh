#!/bin/bash
# Runs one command in the test guest; its output goes to the second serial port, its exit code to /run/vm/out/rc.
cd /run/vm || exit
out=/run/vm/out
finish() {
    echo "${1:-125}" >$out/rc
    sync
    echo b >/proc/sysrq-trigger
}
trap finish EXIT
stty -F /dev/ttyS1 raw -echo
exec 2>/dev/ttyS1
. $out/environment
hostname moorage-vm
mount --make-rshared /
mkdir -p /run/lock
ip link set lo up
for module in loop veth bridge tun vxlan sch_tbf nf_tables nft_ct nft_nat nft_masq nft_reject_inet nft_chain_nat nft_fib_inet dm_thin_pool btrfs; do
    modprobe -q $module || echo "vm: this kernel has no module $module" >&2
done
truncate -s "$SCRATCH" /run/vm/scratch/state.img
mkfs.ext4 -q -E lazy_itable_init=1 /run/vm/scratch/state.img
mkdir -p /run/vm/state
mount -o loop /run/vm/scratch/state.img /run/vm/state
# Everything takes six to ten times longer here than the tests' own time limits expect.
export PYTEST_ADDOPTS="-o timeout=900 -p no:cacheprovider ${PYTEST_ADDOPTS:-}"
# Folders of tests lie on it too: /tmp is a tmpfs here, on which this kernel maps no ids.
export MOORAGE_TEST_STATE=/run/vm/state PYTEST_DEBUG_TEMPROOT=/run/vm/state MOORAGE_TEST_VM=1
case $FOLDER in
/tmp/*) mkdir -p "$FOLDER" && mount --bind "/run/vm/tmp/${FOLDER#/tmp/}" "$FOLDER" ;;
esac
cd "$FOLDER" || finish 125
bash $out/command 2>&1 </dev/null | cat >/dev/ttyS1
finish "${PIPESTATUS[0]}"
