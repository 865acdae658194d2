#!/usr/bin/env bash
# The network: a tap device behind NAT, else QEMU's own.

. net.sh

NET_DEV="${VM_NET_DEV:-$NET_DEV}"
GUEST_IP="${VM_NET_IP:-20.20.20.21}"
GUEST_MAC="${VM_NET_MAC:-${MAC:-}}"
GUEST_HOST="${VM_NET_HOST:-VirtualDSM}"
TAP="${VM_NET_TAP:-dsm}"

requireUsableNetwork
chooseMac "$STORAGE/$MAC_FILE"
html "Initializing network..."
stopWeb
containerIp >/run/shm/qemu.ip
case ${NETWORK,,} in
  "n"*) NET_OPTS="" ;;
  "user"*) configureUser && addNetworkDevice ;;
  *) configureNATorUser && addNetworkDevice ;;
esac

return 0
