#!/usr/bin/env bash
# The container's process: installs DSM if necessary, and runs it.
set -Eeuo pipefail

cd /run

. start.sh      # The user's own
. utils.sh      # Functions
. init.sh       # Initial state
. memory.sh     # Memory
. server.sh     # Placeholder
. download.sh   # Downloads
. install.sh    # PAT to disks
. disk.sh       # Disks of any guest
. display.sh    # Screen
. prepare.sh    # Disks of DSM
. network.sh    # Network
. boot.sh       # Firmware
. proc.sh       # Processor
. serial.sh     # Serial ports and agent
. power.sh      # Stopping
. balloon.sh    # Memory that can be taken back
. config.sh     # Command line
. finish.sh     # Last words

# shellcheck disable=SC2086 # words, here and below: they are split as upstream splits them
no "$SHUTDOWN" && exec qemu-system-x86_64 $ARGS

# shellcheck disable=SC2086
qemu-system-x86_64 $ARGS &
pid=$!
dieLater
# A signal interrupts it, and its handler exits.
status=0
wait "$pid" || status=$?
finish "$status"
