# Compiles the module and the tool inside the toolchain's root, as a user without rights, with no
# write access to the source. Given by the caller as variables before this text: VEXFS_VERSION,
# MODULE_COMMAND, MODULE_FILE, TOOL_COMMAND, TOOL_FILE; KVER, the kernel to compile for, empty: the one
# that runs; CACHED, the parts of the compile cache to use; and JOBS, how many compilers at a time, empty:
# as many as there are cores. The toolchain is mounted on
# /run/vmbake/toolchain with /proc, /dev and a /tmp that can be written, in which cache/ has what earlier
# runs left of these parts; the source lies in /run/vmbake/source.
# Leaves /run/vmbake/results/{module.ko,tool,PART.tar.zst}. Compiler output goes to stdout.
# shellcheck shell=sh
set -eu

root=/run/vmbake/toolchain
results=/run/vmbake/results
KVER=${KVER:-$(uname -r)}
jobs=${JOBS:-$(nproc)}
builder=65534 # nobody
ccache=/tmp/home/ccache
hits=/tmp/home/hits # a line for each file that was compiled or not, and more
sources=/tmp/home/sources # a line for each file of Rust, its digest and its name
compilers=/usr/local/bin:/usr/bin:/bin

in_toolchain() { # command
    chroot --userspec="$builder:$builder" "$root" /usr/bin/env -i \
        PATH="$compilers" HOME=/tmp/home LC_ALL=C.UTF-8 TERM=dumb \
        CCACHE_DIR="$ccache" CCACHE_MAXSIZE=256M CCACHE_STATSLOG="$hits" \
        CARGO_TERM_COLOR=never CARGO_BUILD_JOBS="$jobs" MAKEFLAGS="-j$jobs" \
        KVER="$KVER" KDIR="/lib/modules/$KVER/build" VEXFS_VERSION="$VEXFS_VERSION" \
        /bin/sh -c "cd /tmp/source && $1"
}

only_one() { # pattern
    if ! in_toolchain "set -- $1; [ \$# -eq 1 ] && [ -f \"\$1\" ] && echo \"\$1\""; then
        echo "vmbake: the build was to leave one file $1" >&2
        exit 1
    fi
}

folder_of() { # part of the cache: objects or crates
    if [ "$1" = objects ]; then echo "$ccache"; else echo /tmp/source/target; fi
}

# What is cached is the work of whoever compiled before, so the builder unpacks it, not root; and it is
# used only if all of it can be read (zstd has a checksum at the end).
restore() { # part
    archive=/tmp/cache/$1.tar.zst unpacked=/tmp/home/$1
    if [ ! -f "$root$archive" ]; then
        echo "compile cache: no $1 yet"
    elif ! in_toolchain "mkdir $unpacked && tar --zstd -xf $archive -C $unpacked" ||
        ! in_toolchain "mv -T $unpacked $(folder_of "$1")"; then
        echo "compile cache: its $1 can't be used"
        in_toolchain "rm -rf $unpacked" || true
    elif [ "$1" = crates ]; then
        age_sources
    fi
}

# Cargo goes by times. Files that are as they were become as old as what was compiled from them, the others
# are new. Only those of Rust, because make goes by times as well; and none where there are links, which can
# lead to another file now.
age_sources() {
    in_toolchain "[ -z \"\$(find . -path ./target -prune -o -type l -print -quit)\" ]" || return 0
    # (A name that sha256sum has to escape begins with a backslash.)
    in_toolchain "comm -12 $sources target/$(basename $sources) | grep '^[0-9a-f]' | cut -c 67- |
        xargs -r -d '\n' touch -d @1"
}

keep() { # part
    folder=$(folder_of "$1")
    in_toolchain "[ -d $folder ]" || return 0
    if [ "$1" = objects ]; then
        for what in direct_cache_hit preprocessed_cache_hit cache_miss; do
            printf '%s\t%s\n' "$what" "$(in_toolchain "grep -cx $what $hits")"
        done
        more=--exclude=./tmp
    else
        # Without what was linked, which make could take for up to date. And so old that for cargo every
        # file of the source is newer, whatever the clocks say, but those that age_sources finds unchanged.
        # (Vendored crates it knows by their checksums.)
        in_toolchain "find $folder -name .fingerprint -execdir find . -maxdepth 1 -type f -delete ';' &&
            cp $sources $folder/" || return 0
        more=--mtime=@1
    fi
    if in_toolchain "tar --zstd -c $more -C $folder ." > "$results/$1.tar.zst"; then
        echo "cached_$1=yes"
    else
        rm -f "$results/$1.tar.zst"
    fi
}

chmod 1777 "$root/tmp"
cp -R /run/vmbake/source "$root/tmp/source"
mkdir -p "$root/tmp/home" "$root/tmp/cache"
# A read-only source gives no one the right to write.
chmod -R u+w "$root/tmp/source"
chown -R "$builder:$builder" "$root/tmp/source" "$root/tmp/home"
chmod -R a+rX "$root/tmp/cache"

in_toolchain "find . -name '*.rs' -type f -exec sha256sum {} + | sort > $sources"
# Before the commands, which are free to make these folders themselves.
for part in $CACHED; do
    restore "$part" 2>&1 &
    [ "$part" != objects ] || compilers=/usr/lib/ccache:$compilers
done
wait

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

for part in $CACHED; do
    keep "$part" 2>&1 &
done
wait
