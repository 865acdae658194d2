#!/usr/bin/env bash
# The device by which memory could be taken back.

BALLOON_OPTS="-device virtio-balloon-pci,id=balloon0,bus=pcie.0,addr=0x4"

return 0
