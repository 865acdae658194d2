#!/usr/bin/env bash
# How QEMU is started and stopped.

. stop.sh

: "${API_TIMEOUT:=50}"
: "${QEMU_TIMEOUT:=50}"
QEMU_OUT="/run/shm/qemu.out"
QEMU_LOG="/run/shm/qemu.log"

if no "$KVM"; then
  API_TIMEOUT=$((API_TIMEOUT * 2))
  QEMU_TIMEOUT=$((QEMU_TIMEOUT * 2))
fi

# Sets QEMU_TERM, the other end of the guest's serial port: QEMU says it when it starts.
terminal () {
  QEMU_TERM=$(sed -n 's/.*redirected to \(\/dev\/pts\/[0-9]*\).*/\1/p' "$QEMU_OUT" "$QEMU_LOG" | head -n 1)
  if [ ! -c "$QEMU_TERM" ]; then
    error "QEMU did not tell its serial port."
    exit 55
  fi
}

for signal in SIGTERM SIGHUP SIGINT SIGABRT SIGQUIT; do
  # shellcheck disable=SC2064 # the signal is that of this turn
  trap "shutDown $signal 0" "$signal"
done

return 0
