#!/usr/bin/env bash
# The network: a tap device behind NAT, else QEMU's own.

. net.sh

# 172.30, the third part of the container's own address, 2.
derivedIp () {
  local own
  own=$(containerIp)
  own="${own%.*}"
  echo "172.30.${own##*.}.2"
}

NET_DEV="${DEV:-${VM_NET_DEV:-$NET_DEV}}"
requireUsableNetwork
GUEST_IP="${IP:-${VM_NET_IP:-$(derivedIp)}}"
GUEST_MAC="${MAC:-${VM_NET_MAC:-}}"
GUEST_HOST="${HOST:-${VM_NET_HOST:-VirtualDSM}}"
TAP="${TAP:-${VM_NET_TAP:-qemu}}"

if [ ! -s "$STORAGE/$MAC_FILE" ] && [ -s "$STORAGE/dsm.mac" ]; then
  mv -f "$STORAGE/dsm.mac" "$STORAGE/$MAC_FILE"
fi
chooseMac "$STORAGE/$MAC_FILE"
containerIp >/run/shm/qemu.host
echo "$GUEST_IP" >/run/shm/qemu.ip
echo "$NET_DEV" >/run/shm/qemu.nic
case ${NETWORK,,} in
  "n" | "no" | "none") NET_OPTS="" ;;
  "slirp") configureUser && addNetworkDevice ;;
  "user"* | "pass"*)
    warn "Only QEMU's own user network is available, using slirp."
    configureUser && addNetworkDevice
    ;;
  *) configureNATorUser && addNetworkDevice ;;
esac

return 0
