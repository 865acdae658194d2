#!/usr/bin/env bash
# The three disks of DSM.

. drives.sh

: "${DISK_FMT:=raw}"
BOOT="$STORAGE/$BASE.boot.img"
SYSTEM="$STORAGE/$BASE.system.img"

limitCache
if [ ! -s "$BOOT" ]; then
  error "Virtual DSM boot image does not exist ($BOOT)"
  exit 81
fi
if [ ! -s "$SYSTEM" ]; then
  error "Virtual DSM system image does not exist ($SYSTEM)"
  exit 82
fi

DISK_OPTS+=$(createDevice "$BOOT" "$DISK_TYPE" "1" "0xa" "raw" "$DISK_IO" "$DISK_CACHE" "" "") || exit $?
DISK_OPTS+=$(createDevice "$SYSTEM" "$DISK_TYPE" "2" "0xb" "raw" "$DISK_IO" "$DISK_CACHE" "" "") || exit $?
DISK_OPTS+=$(addDisk "$STORAGE/$DISK_NAME" "3" "0xc") || exit $?
DISK_OPTS+=" -object iothread,id=io2"

return 0
