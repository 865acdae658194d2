#!/usr/bin/env bash
# The last words before QEMU's.

trap - ERR
version=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
info "Booting Virtual DSM using QEMU v$version..."

return 0
