#!/bin/sh
# Mounts a toolchain's image where compile.sh looks for it, and runs a script that compiles.
#   with-toolchain.sh IMAGE SOURCE WORK SCRIPT MOUNTER
# IMAGE: the toolchain's file system. SOURCE: the tree. WORK: a folder, in which `results` is left.
# MOUNTER: kernel, or fuse2fs in a user namespace, where squashfuse mounts this.
# Runs in mount, PID, IPC, UTS and network namespaces of its own, which end with it. Exit status 70:
# squashfuse died.
set -eu
umask 022
trap 'exit 143' TERM

died() {
    echo "vmbake: squashfuse ended before its time" >&2
    exit 70
}

image=$1 source=$2 work=$3 script=$4 mounter=$5
mount -t tmpfs tmpfs /run
root=/run/vmbake/toolchain
mkdir -p "$root" /run/vmbake/source /run/vmbake/results "$work/tmp" "$work/results"
if [ "$mounter" = kernel ]; then
    mount -t squashfs -o ro,loop "$image" "$root"
else
    # The lock of a daemon is free when it is dead.
    exec 8> "$work/mounted"
    flock 8
    squashfuse "$image" "$root" -o ro,allow_other,default_permissions,kernel_cache || died
    exec 8>&-
    mountpoint -q "$root" || died
    # What the builder writes belongs to a subordinate ID: nobody outside could remove what a kill left.
    outside=$work/tmp
    mkdir "$work/inside"
    mount -t tmpfs -o mode=1777 tmpfs "$work/inside"
    cp -R "$outside/." "$work/inside/"
    mount --move "$work/inside" "$outside"
fi
mount --bind "$source" /run/vmbake/source
mount --bind "$work/results" /run/vmbake/results
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o mode=755,nosuid,noexec tmpfs "$root/dev"
for name in null zero full random urandom; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
mount --bind "$work/tmp" "$root/tmp"

status=0
sh "$script" < /dev/null &
compiler=$!
# Without the daemon, compilers fail one by one, and seem to find fault with the source.
[ "$mounter" = kernel ] || (flock --shared "$work/mounted" true && kill -KILL "$compiler" 2> /dev/null) &
wait "$compiler" || status=$?
[ "$mounter" = kernel ] || ! flock --shared --nonblock "$work/mounted" true || died
exit "$status"
