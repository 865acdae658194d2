#!/usr/bin/env bash
# What is particular to 7.63.

VERSION_FILE="/etc/version"
MAC_FILE="virtual-dsm.mac"
AGENT_AT="/run/shm/qemu-host-agent.sock"
API_AT="/run/shm/qemu-host-api.sock"
# Before the guest has an address, the container counts as healthy.
STATUS_BEFORE_NETWORK=0
: "${DISK_DISCARD:=unmap}"
SCSI_OPTS=",hotplug=off"
BRIDGE="docker"
LEASE="1h"
ALWAYS_FORWARDED="22,5000,5001,80,443,445"

return 0
