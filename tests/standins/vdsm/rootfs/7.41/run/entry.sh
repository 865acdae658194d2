#!/usr/bin/env bash
# The container's process: installs DSM if necessary, and runs it.
set -Eeuo pipefail

cd /run

. utils.sh      # Functions
. reset.sh      # Initial state
. install.sh    # PAT to disks
. disk.sh       # Disks
. display.sh    # Screen
. network.sh    # Network
. proc.sh       # Processor
. serial.sh     # Serial ports and agent
. power.sh      # Stopping
. config.sh     # Command line

trap - ERR

version=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
info "Booting Virtual DSM using QEMU v$version..."

if yes "$CONSOLE"; then
  # shellcheck disable=SC2086 # words, here and below: they are split as upstream splits them
  exec qemu-system-x86_64 $ARGS
fi

status=0
# shellcheck disable=SC2086
qemu-system-x86_64 $ARGS >"$QEMU_OUT" 2>"$QEMU_LOG" || status=$?
if ((status != 0)); then
  error "Failed to start QEMU!"
  cat "$QEMU_LOG" >&2
  exit 15
fi

dieLater
tail -fn +0 "$QEMU_LOG" 2>/dev/null &
terminal
# It ends with QEMU; a signal interrupts `wait`, but would not interrupt `cat`.
cat "$QEMU_TERM" 2>/dev/null &
wait $! || :
finish 0
