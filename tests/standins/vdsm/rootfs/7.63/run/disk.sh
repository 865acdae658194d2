#!/usr/bin/env bash
# The disks of any guest; those of DSM are in prepare.sh.

. drives.sh

if [ -z "$DISK_FMT" ]; then
  [ -s "$STORAGE/$DISK_NAME.qcow2" ] && DISK_FMT="qcow2" || DISK_FMT="raw"
fi
if [[ "${DISK_FMT,,}" != "raw" && "${DISK_FMT,,}" != "qcow2" ]]; then
  error "Invalid DISK_FMT: $DISK_FMT"
  exit 78
fi
limitCache

# A boot medium of the user's own. DSM never has one, but this line looks like the one that
# attaches its boot disk: a patch by text must not take it for that.
if [ -n "${BOOT:-}" ] && [ -s "${BOOT:-}" ]; then
  DISK_OPTS+=$(createDevice "$BOOT" "$DISK_TYPE" "9" "0x5" "raw" "$DISK_IO" "$DISK_CACHE" "" "" "media") || exit $?
fi

return 0
