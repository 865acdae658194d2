#!/usr/bin/env bash
# The placeholder page.

. web.sh

startWeb

return 0
