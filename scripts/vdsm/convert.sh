#!/usr/bin/env bash
# Sourced by entry.sh of vdsm/virtual-dsm between install.sh and the script that attaches the
# disks: makes its freshly installed raw images qcow2, because QEMU can't save a snapshot beside a
# raw disk, and sees to it that a saved snapshot is restored.
#
# Uses STORAGE, BASE and ARGUMENTS of the scripts around it, and VMBAKE_SNAPSHOT of the image.
# It must return 0, and ends the container as upstream's scripts do: 97 means no room for an image,
# 79 a conversion that failed.
set -Eeuo pipefail

# The images keep their names: upstream's scripts take nothing else for installed.
vmbake_convert() {
    local image=$1 aside=$1.vmbake magic needed free
    rm -f "$aside" # of a conversion that was killed; it takes room
    [ -s "$image" ] || return 0 # upstream's next script says that it is missing
    magic=$(od -An -tx1 -N4 "$image")
    if [ "$magic" = " 51 46 49 fb" ]; then # QFI\xfb: qcow2
        return 0
    fi
    needed=$(vmbake_needed "$image") || exit $? # it could only leave its own subshell
    free=$(df --output=avail -B 1 "${image%/*}" | tail -n 1)
    if [ "$needed" -gt "$free" ]; then
        vmbake_fail 97 "converting $image needs $needed bytes in ${image%/*}, which has $free"
    fi
    echo "❯ Converting ${image##*/} to qcow2..."
    if ! { qemu-img convert -f raw -O qcow2 "$image" "$aside" \
        && qemu-img check -q -f qcow2 "$aside" \
        && chmod --reference="$image" "$aside" \
        && sync "$aside" \
        && mv -f "$aside" "$image"; }; then
        rm -f "$aside"
        vmbake_fail 79 "$image could not be converted to qcow2"
    fi
}

# The most bytes that the converted image can take.
vmbake_needed() {
    local measured
    measured=$(qemu-img measure --output=json -f raw -O qcow2 "$1") \
        || vmbake_fail 79 "$1 could not be measured"
    [[ $measured =~ \"required\":\ *([0-9]+) ]] \
        || vmbake_fail 79 "qemu-img says nothing of the size of $1: $measured"
    echo "${BASH_REMATCH[1]}"
}

# Whoever sets ARGUMENTS replaces the image's own, and with it the restore; an empty
# VMBAKE_SNAPSHOT is the way to boot cold.
vmbake_restore() {
    local words=" ${ARGUMENTS:-} "
    if [ -n "${VMBAKE_SNAPSHOT:-}" ] && ! [[ $words =~ [[:space:]]--?loadvm[[:space:]] ]]; then
        ARGUMENTS="${ARGUMENTS:-} -loadvm $VMBAKE_SNAPSHOT"
    fi
}

vmbake_fail() {
    echo "❯ ERROR: vmbake: $2" >&2
    exit "$1"
}

vmbake_convert "$STORAGE/$BASE.boot.img"
vmbake_convert "$STORAGE/$BASE.system.img"
vmbake_restore

return 0
