#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Load vexfs, use all of it, unload it, twice over. Needs root and no vexfs loaded before; runs in
# any shell, busybox included. Ends with status 0 only if every check held and the kernel had
# nothing to complain about.
#
# Usage: exercise.sh vexfs.ko [vexctl]
set -eu

MODULE=$1
VEXCTL=${2:-}
WORK=$(mktemp -d)
MNT=$WORK/mnt
BLOCK=$(getconf PAGESIZE 2>/dev/null || echo 4096)
LIMIT=$((64 * BLOCK))
mkdir "$MNT"

step() { echo "exercise: $*"; }
die() { echo "exercise: FAILED: $*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || die "$3: expected '$2', got '$1'"; }
fails() { if "$@" 2>/dev/null; then die "this should have failed: $*"; fi; }
complaints() { dmesg | grep -cE 'WARNING:|BUG:|Oops|Call Trace|vexfs.*(leak|busy)' || true; }
used() { sed -n 's/^mount .* used \([0-9]*\) limit .*/\1/p' /proc/fs/vexfs/status; }

mount_options() {
	step "mount options"
	fails mount -t vexfs -o size=nonsense vexfs "$MNT"
	fails mount -t vexfs -o size=0 vexfs "$MNT"
	fails mount -t vexfs -o mode=9 vexfs "$MNT"
	fails mount -t vexfs -o colour=blue vexfs "$MNT"
	mount -t vexfs -o "size=$LIMIT,mode=1777" vexfs "$MNT"
	same "$(stat -c %a "$MNT")" 1777 "mode of the root"
	same "$(stat -f -c '%b %f %S' "$MNT")" "64 63 $BLOCK" "statfs: blocks, free, size"
	grep -q "^vexfs $MNT vexfs rw,.*size=$((LIMIT / 1024))k,mode=1777" /proc/mounts ||
		die "options in /proc/mounts"
}

files() {
	step "files, links, directories"
	cd "$MNT"
	echo hello >a
	echo more >>a
	same "$(cat a)" "hello
more" "content"
	mv a b
	fails cat a
	same "$(wc -c <b | tr -d ' ')" 11 "size after rename"
	ln b hard
	same "$(stat -c %h b)" 2 "links"
	ln -s b soft
	same "$(cat soft)" "$(cat hard)" "through the symlink"
	same "$(readlink soft)" b "symlink target"
	same "$(stat -c %s soft)" 1 "size of the symlink"
	mkdir -p d/e
	fails rmdir d
	same "$(stat -c %h d)" 3 "links of a directory"
	mv b d/e/b
	cp d/e/b copy
	cmp copy hard
	chmod 600 copy
	chown 12:34 copy
	same "$(stat -c '%a %u %g' copy)" "600 12 34" "attributes"
	touch -d '2001-02-03 04:05:06' copy
	same "$(stat -c %Y copy)" "$(date -d '2001-02-03 04:05:06' +%s)" "time"
	mkfifo pipe
	rm -r d copy hard soft pipe
	cd "$WORK"
	same "$(used)" "$BLOCK" "bytes used by an empty filesystem"
}

sizes() {
	step "truncate, holes, the limit"
	cd "$MNT"
	truncate -s $((3 * BLOCK + 1)) sparse
	same "$(stat -c '%s %b' sparse)" "$((3 * BLOCK + 1)) $((4 * BLOCK / 512))" "hole"
	tr -d '\0' <sparse | wc -c | tr -d ' ' >count
	same "$(cat count)" 0 "a hole reads as zeros"
	truncate -s 1 sparse
	same "$(used)" $((5 * BLOCK)) "after shrinking" # root, two files with a block each
	rm sparse count

	fails truncate -s $((63 * BLOCK)) big
	same "$(stat -c %s big)" 0 "size after a failed truncate"
	fails dd if=/dev/zero of=big bs=$((5 * BLOCK)) count=100
	same "$(stat -c %s big)" $((62 * BLOCK)) "a write goes to the limit"
	same "$(stat -f -c %f .)" 0 "nothing is free"
	fails mkdir none
	fails ln -s big none
	echo over | dd of=big conv=notrunc 2>/dev/null # needs no room
	same "$(head -c 5 big)" over "overwritten when full"
	fails mount -o remount,size=$((63 * BLOCK)) "$MNT"
	mount -o remount,size=$((65 * BLOCK)) "$MNT"
	mkdir one
	fails mkdir two
	exec 9<big
	rm big
	same "$(used)" $((65 * BLOCK)) "deleted, but open"
	exec 9<&-
	same "$(used)" $((2 * BLOCK)) "deleted"
	rmdir one
	cd "$WORK"
}

race() {
	step "writers racing for the last block"
	for n in 1 2 3 4; do
		(
			cd "$MNT"
			for _ in 1 2 3 4 5 6 7 8 9 10; do
				dd if=/dev/zero of="f$n" bs="$BLOCK" count=40 || true
				mv "f$n" "g$n" || true
				truncate -s "$BLOCK" "g$n" || true
				ln -s "g$n" "s$n" || true
				rm -f "g$n" "f$n" "s$n"
			done
		) 2>/dev/null &
	done
	wait
	same "$(used)" "$BLOCK" "bytes used after the race"
}

status() {
	same "$(sed -n 's/^version //p' /proc/fs/vexfs/status)" "$(cat /sys/module/vexfs/version)" \
		"version"
	[ -z "$VEXCTL" ] && return
	step "vexctl"
	"$VEXCTL" status | grep -q "  $MNT: .* of .* used" || die "vexctl status"
	"$VEXCTL" status --json | grep -q "\"used_bytes\":$BLOCK" || die "vexctl status --json"
}

before=$(complaints)
for round in 1 2; do
	step "round $round: load"
	insmod "$MODULE"
	mount_options
	fails rmmod vexfs
	files
	sizes
	race
	status
	umount "$MNT"
	rmmod vexfs
	fails mount -t vexfs vexfs "$MNT"
	[ ! -e /proc/fs/vexfs ] || die "/proc/fs/vexfs is left over"
done
if [ -n "$VEXCTL" ]; then
	same "$("$VEXCTL" status >/dev/null && echo 0 || echo $?)" 3 "vexctl without the module"
fi
same "$(complaints)" "$before" "warnings in the kernel's log"
rmdir "$MNT" "$WORK"
step "all held"
