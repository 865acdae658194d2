#!/bin/sh
# Mounts a toolchain's image where compile.sh looks for it, and runs a script that compiles.
#   with-toolchain.sh IMAGE SOURCE WORK SCRIPT MOUNTER
# IMAGE: the toolchain's file system. SOURCE: the tree. WORK: a folder, in which `results` is left.
# MOUNTER: kernel, or fuse2fs in a user namespace, where squashfuse mounts this.
# Runs in mount, PID, IPC, UTS and network namespaces of its own, which end with it.
set -eu
umask 022
trap 'exit 143' TERM

image=$1 source=$2 work=$3 script=$4 mounter=$5
mount -t tmpfs tmpfs /run
root=/run/vmbake/toolchain
mkdir -p "$root" /run/vmbake/source /run/vmbake/results "$work/tmp" "$work/results"
if [ "$mounter" = kernel ]; then
    mount -t squashfs -o ro,loop "$image" "$root"
else
    squashfuse "$image" "$root" -o ro,allow_other,default_permissions,kernel_cache
    mountpoint -q "$root"
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

sh "$script" < /dev/null &
wait "$!"
