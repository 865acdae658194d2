# Installs the compiled module and tool, and proves that they work here. Given by the caller as
# variables: MODULE (file name), TOOL (file name); both files lie in /run/vmbake/results.
# seal.sh goes on from here in the same shell.
# shellcheck shell=sh
set -eu

# The first thing that sealing needs takes about as long as depmod below: side by side on two cores.
cloud-init clean --logs --machine-id --seed &
# shellcheck disable=SC2034 # seal.sh waits for it
clean=$!

results=/run/vmbake/results
kver=$(uname -r)
name=${MODULE%.ko}

install -D -m 0644 "$results/$MODULE" "/lib/modules/$kver/extra/vexfs/$MODULE"
install -D -m 0755 "$results/$TOOL" /usr/local/bin/vexctl
depmod "$kver"
if [ "$name" != vexfs ]; then
    echo "$name" > /etc/modules-load.d/vexfs.conf
    sed -i "s/^MODULE=.*/MODULE=$name/" /etc/vexfs/vexfs.conf
fi

modprobe "$name"
/usr/local/bin/vexfs-mount-helper mount
/usr/local/bin/vexfs-mount-helper status || true
/usr/local/bin/vexfs-mount-helper unmount
modprobe -r "$name"
systemctl is-enabled vexfs.service > /dev/null

echo "kernel=$kver"
echo "vermagic=$(modinfo -F vermagic "$name")"
echo "tool_version=$(vexctl --version)"
