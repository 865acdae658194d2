# Compiles the module and the tool inside the toolchain's root, as a user without rights, with no
# write access to the source. Given by the caller as variables before this text: VEXFS_VERSION,
# MODULE_COMMAND, MODULE_FILE, TOOL_COMMAND, TOOL_FILE.
# Leaves /run/vmbake/results/{module.ko,tool}. Compiler output goes to stdout.
# shellcheck shell=sh
set -eu

root=/run/vmbake/toolchain
results=/run/vmbake/results
KVER=$(uname -r)
builder=65534 # nobody

device() { # serial number of a disk that was plugged in
    path=/dev/disk/by-id/virtio-$1
    udevadm settle --timeout=60 --exit-if-exists="$path"
    [ -e "$path" ] || { echo "the disk $1 did not appear" >&2; exit 1; }
    echo "$path"
}

in_toolchain() { # command
    chroot --userspec="$builder:$builder" "$root" /usr/bin/env -i \
        PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp/home LC_ALL=C.UTF-8 TERM=dumb \
        CARGO_TERM_COLOR=never MAKEFLAGS="-j$(nproc)" \
        KVER="$KVER" KDIR="/lib/modules/$KVER/build" VEXFS_VERSION="$VEXFS_VERSION" \
        /bin/sh -c "cd /tmp/source && $1"
}

only_one() { # pattern
    # shellcheck disable=SC2086 # the pattern is to be expanded
    set -- "$1" "$root"/tmp/source/$1
    if [ $# -ne 2 ] || [ ! -f "$2" ]; then
        echo "vmbake: the build was to leave one file $1" >&2
        exit 1
    fi
    echo "$2"
}

mkdir -p "$root" "$results" /run/vmbake/source /var/tmp/vmbake
disk=$(device toolchain)
# A toolchain that was installed in a guest is a whole disk, its root the partition with /usr.
for candidate in "$disk" "$disk"-part*; do
    if ! mount -o ro,noload "$candidate" "$root" 2> /dev/null; then continue; fi
    if [ -d "$root/usr/bin" ]; then break; fi
    umount "$root"
done
[ -d "$root/usr/bin" ] || { echo "vmbake: the toolchain disk has no root file system" >&2; exit 1; }
mount -t iso9660 -o ro "$(device source)" /run/vmbake/source
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind /var/tmp/vmbake "$root/tmp"
chmod 1777 "$root/tmp"
cp -R /run/vmbake/source "$root/tmp/source"
mkdir -p "$root/tmp/home"
# An ISO gives no one the right to write.
chmod -R u+w "$root/tmp/source"
chown -R "$builder:$builder" "$root/tmp/source" "$root/tmp/home"

# Side by side: under emulation each uses one core for most of its time.
in_toolchain "$TOOL_COMMAND" > /run/vmbake/tool.log 2>&1 &
tool=$!
module_status=0
in_toolchain "$MODULE_COMMAND" 2>&1 || module_status=$?
tool_status=0
wait "$tool" || tool_status=$?
cat /run/vmbake/tool.log
if [ "$module_status" -ne 0 ]; then
    echo "vmbake: the module's command failed with status $module_status: $MODULE_COMMAND" >&2
    exit 1
fi
if [ "$tool_status" -ne 0 ]; then
    echo "vmbake: the tool's command failed with status $tool_status: $TOOL_COMMAND" >&2
    exit 1
fi

module=$(only_one "$MODULE_FILE")
tool=$(only_one "$TOOL_FILE")
cp "$module" "$tool" "$results/"
# Debug sections are most of a module's size, and the shipped kernel has none either.
chroot "$root" /usr/bin/strip --strip-debug "${module#"$root"}" -o /tmp/stripped.ko
mv "$root/tmp/stripped.ko" "$results/$(basename "$module")"
echo "module=$(basename "$module")"
echo "tool=$(basename "$tool")"
