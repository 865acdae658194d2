#!/usr/bin/env bash
# QEMU's command line.

MAC_OPTS="-machine type=$MACHINE,smm=off,usb=off,vmport=off,dump-guest-core=off,hpet=off$MACHINE_ACCEL"
CPU_LINE="-cpu $CPU_OPTS -smp $CPU_CORES,sockets=1,dies=1,cores=$CPU_CORES,threads=1"
RAM_OPTS="-m ${RAM_SIZE^^}"
MON_OPTS="-pidfile $QEMU_PID -name Virtual-DSM,process=Virtual-DSM"
MON_OPTS+="${QMP:+ -qmp $QMP}${MONITOR:+ -monitor $MONITOR}"
DEV_OPTS="-object rng-random,id=objrng0,filename=/dev/urandom"
DEV_OPTS+=" -device virtio-rng-pci,rng=objrng0,id=rng0,bus=pcie.0,addr=0x1c"
DEV_OPTS+=$(faultOptions)

ARGS="-nodefaults $MAC_OPTS $KVM_OPTS $CPU_LINE $RAM_OPTS $BOOT_OPTS $DISPLAY_OPTS $MON_OPTS"
ARGS+=" $SERIAL_OPTS $NET_OPTS $DISK_OPTS $BALLOON_OPTS $DEV_OPTS $ARGUMENTS"

return 0
