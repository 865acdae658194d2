# Installs the compiled module and tool. Given by the caller as variables: MODULE (file name), TOOL (file
# name); both files lie in /run/vmbake/results; and KVER, the kernel to install for; empty: the one that
# runs. try.sh, in a build VM, and seal.sh go on from here in the same shell.
# shellcheck shell=sh
set -eu

# The first thing that sealing needs takes about as long as depmod below: side by side on two cores.
cloud-init clean --logs --machine-id --seed &
# shellcheck disable=SC2034 # seal.sh waits for it
clean=$!

results=/run/vmbake/results
kver=${KVER:-$(uname -r)}
name=${MODULE%.ko}

install -D -m 0644 "$results/$MODULE" "/lib/modules/$kver/extra/vexfs/$MODULE"
install -D -m 0755 "$results/$TOOL" /usr/local/bin/vexctl
depmod "$kver"
if [ "$name" != vexfs ]; then
    echo "$name" > /etc/modules-load.d/vexfs.conf
    sed -i "s/^MODULE=.*/MODULE=$name/" /etc/vexfs/vexfs.conf
fi

# The place is there before the first mount, whoever mounts first.
(. /etc/vexfs/vexfs.conf && mkdir -p "$MOUNT_POINT")
systemctl is-enabled vexfs.service > /dev/null

echo "kernel=$kver"
echo "vermagic=$(modinfo -k "$kver" -F vermagic "$name")"
echo "tool_version=$(vexctl --version)"
