#!/usr/bin/env bash
# What is particular to 7.41.

VERSION_FILE="/run/version"
MAC_FILE="dsm.mac"
AGENT_AT="12345"
API_AT="2210"
# Before the guest has an address, the container is not healthy.
STATUS_BEFORE_NETWORK=1
: "${DISK_DISCARD:=on}"
SCSI_OPTS=""
BRIDGE="dockerbridge"
LEASE="infinite"
ALWAYS_FORWARDED="22,5000"

return 0
