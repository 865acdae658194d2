#!/usr/bin/env bash
# Run by host.bin when the guest has booted: waits for its address, and says that it can be used.
set -Eeuo pipefail

cd /run
. utils.sh
. layout.sh
. agent.sh

address=""
while [ ! -f /run/shm/qemu.end ]; do
  address=$(askAgent 10 10 | sed -n 's/.*"ip": "\([0-9.]\+\)".*/\1/p')
  [ -n "$address" ] && break
  sleep 0.5
done
[ -n "$address" ] || exit 0
echo "$address:5000" >/run/shm/dsm.url
info "-----------------------------------------------------------"
info " You can now login to DSM at port 5000"
info "-----------------------------------------------------------"
