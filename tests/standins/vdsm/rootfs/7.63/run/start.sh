#!/usr/bin/env bash
# Empty: a user may mount a script here that runs before all others.

return 0
