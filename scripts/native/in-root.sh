#!/bin/sh
# Enters a mounted root file system as a container and runs SHARE/inside.sh there.
#   in-root.sh ROOT SHARE NETWORK
# NETWORK: yes or no. SHARE appears as /run/vmbake. SHARE/hostname holds the host name, SHARE/cmdline what the kernel's
# command line is to be. Runs in mount, PID, UTS and IPC namespaces of its own.
#
# The container can't load modules, mount, reboot, set clocks, make device nodes or change the
# running kernel's settings; it has no device but those below, and the host's files are out of reach.
set -eu
# What is made in an image is for everybody there, whatever the caller thinks of their own files.
umask 022

cd "$1"
share=$2 network=$3
hostname "$(cat "$share/hostname")"

mount -t proc -o nosuid,nodev,noexec proc proc
for path in sys sysrq-trigger irq bus fs; do
    [ -e "proc/$path" ] || continue
    mount --bind "proc/$path" "proc/$path"
    mount -o remount,bind,ro,nosuid,nodev,noexec "proc/$path"
done
mount --bind "$share/cmdline" proc/cmdline
# A user namespace gets a sysfs for its own network only. The host's is of no use to who is nobody there.
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys 2> /dev/null || mount --rbind /sys sys

mount -t tmpfs -o mode=755,nosuid,noexec tmpfs dev
for name in null zero full random urandom tty; do
    : > "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir -m 1777 dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir -p run/lock run/vmbake run/systemd/resolve
# Where the resolv.conf of an image leads that is not booted.
[ ! -e /etc/resolv.conf ] || cat /etc/resolv.conf > run/systemd/resolve/resolv.conf
cp run/systemd/resolve/resolv.conf run/systemd/resolve/stub-resolv.conf 2> /dev/null || true
# Other images have the servers of the place where they were made, or of none yet.
if [ "$network" = yes ] && [ -e run/systemd/resolve/resolv.conf ]; then
    # A link is read and never followed: what is absolute would lead to the host's files.
    link=$(readlink etc/resolv.conf || true)
    case $link in
        *run/systemd/resolve/*) ;;
        /run/* | ../run/* | /var/run/* | ../var/run/*)
            place=run/${link#*run/}
            mkdir -p "${place%/*}"
            cp run/systemd/resolve/resolv.conf "$place"
            ;;
        "")
            [ -e etc/resolv.conf ] || : > etc/resolv.conf
            mount --bind run/systemd/resolve/resolv.conf etc/resolv.conf
            ;;
    esac
fi
mount --bind "$share" run/vmbake
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp

pivot_root . .
umount -l .
cd /
exec setpriv --inh-caps=-all \
    --bounding-set=-sys_admin,-sys_module,-sys_boot,-sys_time,-sys_rawio,-sys_ptrace,-syslog,-mknod,-net_admin,-mac_admin,-mac_override \
    sh /run/vmbake/inside.sh
