#!/usr/bin/env bash
# Serial port and the channel to the guest's agent.

. agent.sh

startAgent

SERIAL_OPTS="-serial pty"
SERIAL_OPTS+=" -device virtio-serial-pci,id=virtio-serial0,bus=pcie.0,addr=0x3"
SERIAL_OPTS+=" -chardev socket,id=charchannel0,host=127.0.0.1,port=$AGENT_AT"
SERIAL_OPTS+=" -device virtserialport,bus=virtio-serial0.0,nr=1,chardev=charchannel0,id=channel0,name=vchannel"

return 0
