#!/usr/bin/env bash
# DSM has no screen.

DISPLAY_OPTS="-display none -vga none"

return 0
