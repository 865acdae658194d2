# Proves that the installed module works on the kernel that runs. Goes on from install.sh in the same
# shell; seal.sh follows.
# shellcheck shell=sh
set -eu

# shellcheck disable=SC2154 # install.sh set it
modprobe "$name"
/usr/local/bin/vexfs-mount-helper mount
/usr/local/bin/vexfs-mount-helper status || true
/usr/local/bin/vexfs-mount-helper unmount
modprobe -r "$name"
