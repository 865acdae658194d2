#!/usr/bin/env bash
# Accelerator and CPU. A -cpu among the user's arguments wins, since it comes last; only
# "host" is taken out of them, and what follows it becomes a part of ours.

. processor.sh

if [[ " $ARGUMENTS " =~ \ -cpu\ host(,[^ ]*)?\  ]]; then
  CPU_FLAGS+="${CPU_FLAGS:+,}${BASH_REMATCH[1]#,}"
  ARGUMENTS="${ARGUMENTS/"-cpu host${BASH_REMATCH[1]}"/}"
fi
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
