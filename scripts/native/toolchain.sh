# Makes a toolchain of a root that is thrown away afterwards: with compilers and the headers of its kernel in
# it, all that compiling needs is packed as /run/vmbake/$IMAGE; follows apt.sh. Given by the caller as variables:
# PACKAGES (names), KVER (the kernel), SQUASHFS (words for mksquashfs), IMAGE (a file name).
# Exit status 74: the archive has no headers of this kernel.
# shellcheck shell=sh
set -eu

if [ ! -e "/lib/modules/$KVER/build/Makefile" ]; then
    if ! apt-cache show "linux-headers-$KVER" > /dev/null 2>&1; then
        echo "vmbake: apt knows no package linux-headers-$KVER" >&2
        exit 74
    fi
    PACKAGES="$PACKAGES linux-headers-$KVER"
fi
# shellcheck disable=SC2086 # these are words
install_packages --no-install-recommends $PACKAGES zstd squashfs-tools

cd /
# Patterns are for mksquashfs, not for the shell.
set -f
# What boots or is read by people is most of an image, and of no use here.
# shellcheck disable=SC2086 # these are words
mksquashfs / "/run/vmbake/$IMAGE" $SQUASHFS 'proc/*' 'sys/*' 'run/*' 'tmp/*' 'boot/*' 'var/cache/*' \
    'var/lib/apt/*' 'var/log/*' 'lib/modules/*/kernel' 'usr/lib/modules/*/kernel' \
    'usr/lib/firmware/*' 'usr/share/doc/*' 'usr/share/man/*' 'usr/share/locale/*'
