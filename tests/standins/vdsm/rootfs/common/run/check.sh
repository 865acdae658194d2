#!/usr/bin/env bash
# Docker's health check.
set -Eeuo pipefail

. /run/layout.sh

if [ -f /run/shm/qemu.end ]; then
  echo "QEMU is shutting down."
  exit 1
fi
if [ ! -s /run/shm/qemu.pid ]; then
  echo "QEMU is not running yet."
  exit 0
fi
if [ ! -s /run/shm/dsm.url ]; then
  echo "DSM has not enabled networking yet."
  exit "$STATUS_BEFORE_NETWORK"
fi
url=$(</run/shm/dsm.url)
# The address that QEMU's user network gives is known inside QEMU only.
[[ "$url" == 10.0.2.* ]] && url="127.0.0.1:${url##*:}"
if ! busybox wget -q -T 20 -O /dev/null "http://$url/"; then
  echo "Failed to reach DSM at $url."
  exit 1
fi
echo "Healthcheck OK"
