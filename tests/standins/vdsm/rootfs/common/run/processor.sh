#!/usr/bin/env bash
# Functions that choose accelerator and CPU.

: "${CPU_MODEL:=}"
: "${CPU_FLAGS:=}"

# Switches KVM off, or fails, if it can't be used.
checkKvm () {
  local why=""
  no "$KVM" && return 0
  if [ ! -e /dev/kvm ]; then
    why="is missing"
  elif ! { : >/dev/kvm; } 2>/dev/null; then
    why="can't be opened for writing"
  elif ! grep -qwE 'vmx|svm' /proc/cpuinfo; then
    why="is there, but the processor has no virtualization"
  fi
  [ -z "$why" ] && return 0
  if ! yes "$DEBUG"; then
    error "KVM acceleration is not available: /dev/kvm $why."
    exit 88
  fi
  KVM="N"
}

# Sets CPU_OPTS: the model, what it gets in any case, and last what the user wants.
chooseCpu () {
  local model="$CPU_MODEL" features=""
  if ! no "$KVM"; then
    features="kvm=on,l3-cache=on,+hypervisor"
    [ -n "$model" ] || features+=",migratable=no"
    grep -qw tsc_scale /proc/cpuinfo && features+=",+invtsc"
    model="${model:-host}"
  fi
  CPU_OPTS="${model:-max}${features:+,$features}${CPU_FLAGS:+,$CPU_FLAGS}"
}

return 0
