#!/bin/sh
# Mounts the root file system of an open disk, and has in-root.sh work on that.
#   with-root.sh DISK WORK NETWORK SHARE
# DISK: what the daemon of with-disk.sh shows, the other words as there.
# Runs in a mount namespace of its own. Exit status 72: the image could not take all that was written.
set -eu

disk=$1 work=$2 network=$3 share=$4
root=$work/root
mkdir -p "$root"

# The root is the largest partition. A loop device that mount made goes when the mount goes.
partx --bytes --noheadings --raw --output SIZE,START "$disk" | sort -n | tail -n 1 > "$work/largest"
read -r size start < "$work/largest"
mount -t ext4 -o "loop,offset=$((start * 512)),sizelimit=$size,discard" "$disk" "$root"

apart="--mount --pid --uts --ipc --fork --kill-child=KILL"
[ "$network" = yes ] || apart="$apart --net"
status=0
# shellcheck disable=SC2086 # these are words
unshare $apart sh "${0%/*}/in-root.sh" "$root" "$share" < /dev/null &
container=$!
# The lock is free when the daemon is dead. What works on the disk would fail bit by bit, or not at all.
(flock --shared "$work/alive" true && kill -KILL "$container" 2> /dev/null) &
wait "$container" || status=$?

# Without the daemon nothing reaches the image any more, and unmounting would only say so at length.
! flock --shared --nonblock "$work/alive" true || exit "$status"
# The script's writes reach the image behind its back; this tells whether all of them could.
if ! sync -f "$root"; then
    echo "vmbake: not all that was written reached the image" >&2
    exit 72
fi
umount "$root"
exit "$status"
