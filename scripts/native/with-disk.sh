#!/bin/sh
# Opens a disk image on this host and has with-root.sh work on that.
#   with-disk.sh IMAGE WORK NETWORK SHARE MOUNTER
# IMAGE: a qcow2. WORK: an empty folder. NETWORK: yes or no. SHARE: what in-root.sh shows the script.
# MOUNTER: kernel, or fuse2fs where the kernel lets nobody mount ext4: in a user namespace.
#
# This is the first process of a PID namespace, in a mount namespace of its own. However it ends, the
# kernel ends the daemons, each mount and the loop device with it; what is done on the way out is for
# the image, which then has all that was written. Exit status 70: a daemon died; 72: the image could not
# take all that was written.
set -eu
trap 'exit 143' TERM

image=$1 work=$2 network=$3 share=$4 mounter=$5
disk=$work/disk
: > "$disk"

# Its lock tells better than its process ID, which stays until somebody asks how it ended.
gone() { flock --shared "$@" "$work/alive" true; }
died() {
    echo "vmbake: qemu-storage-daemon ended before its time" >&2
    exit 70
}

# The export is there when --daemonize returns; descriptor 9 holds the lock while the daemon lives.
# Nothing waits for the host's own disk here: results are synced when they enter the store.
exec 9> "$work/alive"
flock 9
qemu-storage-daemon --daemonize --pidfile "$work/pid" \
    --blockdev "driver=file,filename=$image,node-name=file,discard=unmap,cache.no-flush=on" \
    --blockdev driver=qcow2,file=file,node-name=disk,discard=unmap,detect-zeroes=unmap,cache.no-flush=on \
    --export "type=fuse,id=disk,node-name=disk,mountpoint=$disk,writable=on" ||
    died
exec 9>&-

# In a mount namespace without the daemon. A process that is killed leaves its namespace before its files
# are closed: as the last one that has the root mounted, the daemon would unmount it, and wait for ever
# for what only itself could write.
status=0
# In the background, because a shell that waits for a foreground program hears no signal.
unshare --mount sh "${0%/*}/with-root.sh" "$disk" "$work" "$network" "$share" "$mounter" < /dev/null &
wait "$!" || status=$?

! gone --nonblock || died
kill "$(cat "$work/pid")" || died
gone
exit "$status"
