#!/usr/bin/env bash
# Firmware: SeaBIOS, without any flash.

: "${MACHINE:=q35}"
BOOT_OPTS="-boot strict=on"

return 0
