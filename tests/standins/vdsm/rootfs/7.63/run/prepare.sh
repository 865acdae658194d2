#!/usr/bin/env bash
# The three disks of DSM; the placeholder makes room for its web server.

boot="$STORAGE/$BASE.boot.img"
system="$STORAGE/$BASE.system.img"
if [ ! -s "$boot" ]; then
  error "Virtual DSM boot image does not exist ($boot)"
  exit 81
elif [ ! -s "$system" ]; then
  error "Virtual DSM system image does not exist ($system)"
  exit 82
fi

DISK_OPTS+=$(createDevice "$boot" "$DISK_TYPE" "1" "0xa" "raw" "$DISK_IO" "$DISK_CACHE" "" "" "synoboot") || exit $?
DISK_OPTS+=$(createDevice "$system" "$DISK_TYPE" "2" "0xb" "raw" "$DISK_IO" "$DISK_CACHE" "" "" "synosys") || exit $?
DISK_OPTS+=$(addDisk "$STORAGE/$DISK_NAME" "3" "0xc") || exit $?
[[ "${DISK_TYPE,,}" == "none" ]] || DISK_OPTS+=" -object iothread,id=io2"
stopWeb

return 0
