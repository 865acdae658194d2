#!/usr/bin/env bash
# QEMU's command line.

DEF_OPTS="-nodefaults -boot strict=on"
CPU_LINE="-cpu $CPU_OPTS -smp $CPU_CORES,sockets=1,dies=1,cores=$CPU_CORES,threads=1"
RAM_OPTS="-m ${RAM_SIZE^^}"
MAC_OPTS="-machine type=q35,smm=off,usb=off,vmport=off,dump-guest-core=off,hpet=off$MACHINE_ACCEL"
MON_OPTS="-pidfile $QEMU_PID -name virtual-dsm,process=virtual-dsm"
MON_OPTS+=" -monitor telnet:localhost:7100,server,nowait,nodelay"
DEV_OPTS="-device virtio-balloon-pci,id=balloon0,bus=pcie.0,addr=0x4"
DEV_OPTS+=" -object rng-random,id=objrng0,filename=/dev/urandom"
DEV_OPTS+=" -device virtio-rng-pci,rng=objrng0,id=rng0,bus=pcie.0,addr=0x1c"
DEV_OPTS+=$(faultOptions)
yes "$CONSOLE" || MON_OPTS+=" -daemonize"

ARGS="$DEF_OPTS $CPU_LINE $RAM_OPTS $MAC_OPTS $KVM_OPTS $DISPLAY_OPTS $MON_OPTS $SERIAL_OPTS"
ARGS+=" $NET_OPTS $DISK_OPTS $DEV_OPTS $ARGUMENTS"

return 0
