# Makes the root file system clean and read-only, so that nothing can be written after this. The last
# thing that runs in a build VM, after seal.sh in the same shell. Never for a host's own shell: it is about
# all file systems of the running kernel.
# shellcheck shell=sh
set -eu

swapoff -a
umount /boot/efi 2> /dev/null || true
sync
fstrim / || true
# Read-only in one stroke: journal written, superblock clean, and nothing can be written any more.
# The kernel does it in the background and tells nobody when it is done: look, for a minute at most.
echo u > /proc/sysrq-trigger
looks=600
until grep -q '^[^ ]* / [^ ]* ro[, ]' /proc/mounts || [ "$looks" -eq 0 ]; do
    sleep 0.1
    looks=$((looks - 1))
done
[ "$looks" -eq 0 ] || echo sealed=yes
