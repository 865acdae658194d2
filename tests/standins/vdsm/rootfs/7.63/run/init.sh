#!/usr/bin/env bash
# The state in which every start begins.

. layout.sh
. system.sh

: "${SHUTDOWN:=Y}"

info "Starting Virtual DSM for Docker v$(<"$VERSION_FILE")..."
rm -f /run/shm/qemu.* /run/shm/dsm.url /run/shm/*.pid /run/shm/*.sock /run/shm/*.pipe

[[ "$STORAGE" == "/storage" ]] || mkdir -p "$STORAGE"
requireStorage
limitCores

return 0
