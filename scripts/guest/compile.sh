# Compiles the module and the tool inside the toolchain's root, as a user without rights, with no
# write access to the source. Given by the caller as variables before this text: VEXFS_VERSION,
# MODULE_COMMAND, MODULE_FILE, TOOL_COMMAND, TOOL_FILE, and KVER, the kernel to compile for; empty: the
# one that runs. The toolchain is mounted on /run/vmbake/toolchain with /proc, /dev and a /tmp that can
# be written; the source lies in /run/vmbake/source.
# Leaves /run/vmbake/results/{module.ko,tool}. Compiler output goes to stdout.
# shellcheck shell=sh
set -eu

root=/run/vmbake/toolchain
results=/run/vmbake/results
KVER=${KVER:-$(uname -r)}
builder=65534 # nobody

in_toolchain() { # command
    chroot --userspec="$builder:$builder" "$root" /usr/bin/env -i \
        PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp/home LC_ALL=C.UTF-8 TERM=dumb \
        CARGO_TERM_COLOR=never MAKEFLAGS="-j$(nproc)" \
        KVER="$KVER" KDIR="/lib/modules/$KVER/build" VEXFS_VERSION="$VEXFS_VERSION" \
        /bin/sh -c "cd /tmp/source && $1"
}

only_one() { # pattern
    if ! in_toolchain "set -- $1; [ \$# -eq 1 ] && [ -f \"\$1\" ] && echo \"\$1\""; then
        echo "vmbake: the build was to leave one file $1" >&2
        exit 1
    fi
}

chmod 1777 "$root/tmp"
cp -R /run/vmbake/source "$root/tmp/source"
mkdir -p "$root/tmp/home"
# A read-only source gives no one the right to write.
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
# Read by the user who wrote them: a link out of the tree leads no further than they could.
# Debug sections are most of a module's size, and the shipped kernel has none either.
in_toolchain "strip --strip-debug -o /tmp/home/stripped.ko '$module' && cat /tmp/home/stripped.ko" \
    > "$results/$(basename "$module")"
in_toolchain "cat '$tool'" > "$results/$(basename "$tool")"
echo "module=$(basename "$module")"
echo "tool=$(basename "$tool")"
