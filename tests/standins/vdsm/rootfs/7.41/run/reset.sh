#!/usr/bin/env bash
# The state in which every start begins.

. layout.sh
. web.sh
. system.sh

: "${CONSOLE:=N}"
: "${COMMIT:=N}"

info "Starting Virtual DSM for Docker v$(<"$VERSION_FILE")..."
rm -f /run/shm/qemu.* /run/shm/dsm.url

if yes "$COMMIT"; then
  STORAGE="/local"
  mkdir -p "$STORAGE"
fi
requireStorage
limitCores
checkMemory fail
startWeb

return 0
