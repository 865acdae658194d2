#!/usr/bin/env bash
# What the machine must have, and what of it the guest gets.

: "${KVM:=Y}"
: "${DEBUG:=N}"
: "${CPU_CORES:=2}"
: "${RAM_SIZE:=2G}"
: "${RAM_CHECK:=Y}"
: "${STORAGE:=/storage}"
: "${ARGUMENTS:=}"

QEMU_PID="/run/shm/qemu.pid"
QEMU_END="/run/shm/qemu.end"
# What the container itself needs beside the guest.
RAM_SPARE=450000000

requireStorage () {
  if [ ! -d "$STORAGE" ] || [ ! -w "$STORAGE" ]; then
    error "Storage folder ($STORAGE) does not exist or can't be written."
    exit 13
  fi
  rm -rf "$STORAGE/tmp"
}

limitCores () {
  local there
  there=$(nproc)
  [[ "${CPU_CORES,,}" == "max" ]] && CPU_CORES="$there"
  [[ "${CPU_CORES,,}" == "half" ]] && CPU_CORES=$((there > 1 ? there / 2 : 1))
  if ! [[ "$CPU_CORES" =~ ^[1-9][0-9]*$ ]]; then
    error "Invalid amount of CPU_CORES: $CPU_CORES"
    exit 15
  fi
  if ((CPU_CORES > there)); then
    warn "CPU_CORES is $CPU_CORES, but there are only $there logical cores: using $there."
    CPU_CORES="$there"
  fi
}

# What to do with a RAM_SIZE that is more than there is: fail or reduce.
checkMemory () {
  local way="$1" available wanted
  if ! wanted=$(bytesOf "$RAM_SIZE") 2>/dev/null || ((wanted < 136314880)); then
    error "Invalid RAM_SIZE: $RAM_SIZE"
    exit 16
  fi
  no "$RAM_CHECK" && return 0
  available=$(($(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 1024 - RAM_SPARE))
  ((wanted <= available)) && return 0
  if [[ "$way" == "reduce" ]]; then
    RAM_SIZE="$((available / 1048576))M"
    return 0
  fi
  error "RAM_SIZE $RAM_SIZE is too high: only $((available / 1048576)) MB are available."
  exit 17
}

return 0
