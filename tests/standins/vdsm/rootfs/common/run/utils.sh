#!/usr/bin/env bash
# What every other script uses: the log, and the faults that this container was given.

# Words of STANDIN_FAULTS for the container; all others are for the guest's web server.
#   exit=N            fail with this status in the middle of the installation
#   die-after-boot=S  kill QEMU S seconds after its start (3)
#   no-agent          whoever asks the guest's agent for something gets no answer
CONTAINER_FAULTS="exit die-after-boot no-agent"

info () { printf '\033[1;34m❯ \033[1;36m%s\033[0m\n' "$1"; }
warn () { printf '\033[1;31m❯ Warning: %s\033[0m\n' "$1" >&2; }
error () { printf '\033[1;31m❯ ERROR: %s\033[0m\n' "$1" >&2; }

# Is the fault given? Prints its value, or the one named here ($2) if it has none.
fault () {
  local word
  for word in ${STANDIN_FAULTS//,/ }; do
    if [[ "${word%%=*}" == "$1" ]]; then
      [[ "$word" == *=* ]] && echo "${word#*=}" || echo "${2:-}"
      return 0
    fi
  done
  return 1
}

# Prints the QEMU option by which the guest's web server gets to know how it is to misbehave.
faultOptions () {
  local word words="" file="/run/shm/qemu.faults"
  for word in ${STANDIN_FAULTS//,/ }; do
    [[ " $CONTAINER_FAULTS " == *" ${word%%=*} "* ]] || words+="${words:+,}$word"
  done
  [ -n "$words" ] || return 0
  printf '%s' "$words" >"$file"
  printf ' -fw_cfg name=opt/standin/faults,file=%s' "$file"
}

yes () { [[ "${1^^}" == "Y"* ]]; }
no () { [[ "${1^^}" == "N"* ]]; }

# Bytes of a size such as 16G.
bytesOf () { numfmt --from=iec -- "${1^^}"; }

# Bytes that are free in a folder.
freeBytes () { df --output=avail --block-size=1 -- "$1" | tail -n 1; }

: "${STANDIN_FAULTS:=}"
trap 'error "Status $? while executing: $BASH_COMMAND (line $LINENO of ${BASH_SOURCE[0]})"' ERR

return 0
