#!/usr/bin/env bash
# Accelerator and CPU. A -cpu among the user's arguments is not obeyed.

. processor.sh

while [[ " $ARGUMENTS " =~ \ (-cpu\ [^ ]+)\  ]]; do
  warn "Ignoring \"${BASH_REMATCH[1]}\" in ARGUMENTS: use CPU_MODEL and CPU_FLAGS instead."
  ARGUMENTS="${ARGUMENTS/"${BASH_REMATCH[1]}"/}"
done
checkKvm
chooseCpu
if no "$KVM"; then
  KVM_OPTS="-accel tcg,thread=multi"
  MACHINE_ACCEL=""
else
  KVM_OPTS="-enable-kvm -global kvm-pit.lost_tick_policy=discard"
  MACHINE_ACCEL=",accel=kvm"
fi

return 0
