#!/usr/bin/env bash
# How QEMU is stopped.

. stop.sh

: "${API_TIMEOUT:=90}"
: "${QEMU_TIMEOUT:=${TIMEOUT:-105}}"

number=0
for signal in HUP INT QUIT ABRT TERM; do
  number=$(kill -l "$signal")
  # shellcheck disable=SC2064 # the values are those of this turn
  trap "shutDown SIG$signal $((128 + number))" "$signal"
done

return 0
