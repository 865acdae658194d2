#!/usr/bin/env bash
# The guest's memory.

checkMemory reduce

return 0
