#!/usr/bin/env bash
# Functions that connect the guest: by a tap device behind NAT, or by QEMU's own user network.

: "${NETWORK:=Y}"
: "${DHCP:=N}"
: "${MTU:=}"
: "${HOST_PORTS:=}"
: "${USER_PORTS:=}"
: "${NET_DEV:=eth0}"
DNSMASQ_PID="/run/shm/dnsmasq.pid"
NET_OPTS=""

containerIp () { ip -4 -o address show dev "$NET_DEV" | sed -n 's/.* inet \([0-9.]*\).*/\1/p'; }

# The guest's MAC address: as told, else as kept in a file, else from the name of the container.
chooseMac () {
  local kept="$1" sum
  if [ -z "$GUEST_MAC" ] && [ -s "$kept" ]; then
    GUEST_MAC=$(<"$kept")
  elif [ -z "$GUEST_MAC" ]; then
    sum=$(md5sum <<<"$HOSTNAME")
    GUEST_MAC="02:11:32:${sum:0:2}:${sum:2:2}:${sum:4:2}"
  fi
  GUEST_MAC="${GUEST_MAC^^}"
  GUEST_MAC="${GUEST_MAC//-/:}"
  [[ "$GUEST_MAC" =~ ^([0-9A-F]{2}:){5}[0-9A-F]{2}$ ]] || {
    error "Invalid MAC address: $GUEST_MAC"
    exit 28
  }
  echo "$GUEST_MAC" >"$kept"
}

# Prints what QEMU's user network forwards: ports such as 5000, 53/udp, separated by commas.
forwards () {
  local word protocol
  for word in ${1//,/ }; do
    protocol="tcp"
    [[ "$word" == */udp ]] && protocol="udp"
    word="${word%/*}"
    printf ',hostfwd=%s::%s-:%s' "$protocol" "$word" "$word"
  done
}

# Ports without repetition, in their order, separated by commas.
unique () {
  local word seen=","
  for word in ${1//,/ }; do
    [[ "$seen" == *",$word,"* ]] || seen+="$word,"
  done
  seen="${seen#,}"
  echo "${seen%,}"
}

configureUser () {
  NET_OPTS="-netdev user,id=hostnet0,hostname=$GUEST_HOST"
  NET_OPTS+=$(forwards "$(unique "$ALWAYS_FORWARDED,$USER_PORTS")")
}

# The first iptables that this kernel works with.
chooseIptables () {
  local name
  for name in iptables-legacy iptables-nft; do
    if "$name" -t nat -S >/dev/null 2>&1; then
      IPTABLES="$name"
      return 0
    fi
  done
  warn "The kernel has no NAT table, or NET_ADMIN is missing."
  return 1
}

configureNAT () {
  local gateway="${GUEST_IP%.*}.1" uplink except=()
  uplink=$(containerIp)
  if [ ! -c /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200 2>/dev/null || :
  fi
  chooseIptables || return 1
  ip link add dev "$BRIDGE" type bridge || return 1
  ip address add "$gateway/24" broadcast "${GUEST_IP%.*}.255" dev "$BRIDGE" || return 1
  ip link set "$BRIDGE" up || return 1
  ip tuntap add dev "$TAP" mode tap || return 1
  ip link set "$TAP" up promisc on master "$BRIDGE" || return 1
  [ -n "$HOST_PORTS" ] && except=(-m multiport '!' --dports "${HOST_PORTS// /}")
  "$IPTABLES" -t nat -A POSTROUTING -o "$NET_DEV" -j MASQUERADE &&
    "$IPTABLES" -t nat -A PREROUTING -i "$NET_DEV" -d "$uplink" -p tcp "${except[@]}" \
      -j DNAT --to-destination "$GUEST_IP" &&
    "$IPTABLES" -t nat -A PREROUTING -i "$NET_DEV" -d "$uplink" -p udp \
      -j DNAT --to-destination "$GUEST_IP" || return 1
  dnsmasq --conf-file=/dev/null --user=root --pid-file="$DNSMASQ_PID" --no-hosts \
    --interface="$BRIDGE" --bind-interfaces --except-interface=lo \
    --dhcp-leasefile=/run/shm/dnsmasq.leases --dhcp-authoritative \
    --dhcp-range="$GUEST_IP,$GUEST_IP,$LEASE" --dhcp-option=option:router,"$gateway" \
    --dhcp-host="$GUEST_MAC,$GUEST_IP,$GUEST_HOST,$LEASE" || return 1
  NET_OPTS="-netdev tap,id=hostnet0,ifname=$TAP,script=no,downscript=no"
  if [ -c /dev/vhost-net ] && { : >/dev/vhost-net; } 2>/dev/null; then
    NET_OPTS+=",vhost=on"
  fi
}

closeNAT () {
  [ -s "$DNSMASQ_PID" ] && kill "$(<"$DNSMASQ_PID")" 2>/dev/null || :
  ip link delete "$TAP" 2>/dev/null || :
  ip link delete "$BRIDGE" 2>/dev/null || :
  [ -z "${IPTABLES:-}" ] || "$IPTABLES" -t nat -F 2>/dev/null || :
}

configureNATorUser () {
  # What fails in it is told by a status: the way out is the other kind of network.
  if ! configureNAT; then
    closeNAT
    warn "falling back to user-mode networking!"
    warn "ports other than $(unique "$ALWAYS_FORWARDED,$USER_PORTS") can't be reached."
    configureUser
  fi
}

addNetworkDevice () {
  local mtu="$MTU"
  [ -n "$mtu" ] || mtu=$(<"/sys/class/net/$NET_DEV/mtu")
  NET_OPTS+=" -device virtio-net-pci,id=net0,netdev=hostnet0,romfile=,mac=$GUEST_MAC"
  [[ "$mtu" == "0" || "$mtu" == "1500" ]] || NET_OPTS+=",host_mtu=$mtu"
}

requireUsableNetwork () {
  if yes "$DHCP"; then
    error "The stand-in has no macvlan network: DHCP=Y can't be used."
    exit 20
  fi
  if [ ! -d "/sys/class/net/$NET_DEV" ]; then
    error "Network interface $NET_DEV does not exist."
    exit 27
  fi
}

return 0
