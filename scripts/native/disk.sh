#!/bin/sh
# Read in by with-root.sh and adopt.sh: what both have to say of an open disk.

unsupported() {
    echo "vmbake: $1" >&2
    exit 73
}

# The root is the largest partition.
# shellcheck disable=SC2034 # for those who read this in
find_root() { # disk, folder for a scratch file; leaves start and size in bytes, and the number
    partx --bytes --noheadings --raw --output SIZE,START,NR "$1" | sort -n | tail -n 1 > "$2/largest"
    read -r size start number < "$2/largest" ||
        unsupported "it has no partition table that can be read"
    start=$((start * 512))
}
