#!/usr/bin/env bash
# Functions around host.bin, the peer of the agent in the guest.

startAgent () {
  local options=()
  fault no-agent >/dev/null && options=(--silent)
  /run/host.bin --agent "$AGENT_AT" --api "$API_AT" "${options[@]}" &
  HOST_PID=$!
  local tries=0
  # It has no way to say that it listens, and takes a few hundredths of a second for it.
  until askAgent 0 0 >/dev/null 2>&1; do
    kill -0 "$HOST_PID" 2>/dev/null && ((++tries < 200)) || {
      error "host.bin could not be started."
      exit 58
    }
    sleep 0.05
  done
}

# Sends a command to the guest's agent, and prints the answer: JSON with status, data, message.
askAgent () {
  local command="$1" timeout="$2" where=("$API_AT")
  [[ "$API_AT" == /* ]] && where=(-U "$API_AT") || where=(127.0.0.1 "$API_AT")
  printf 'GET /read?command=%s&timeout=%s HTTP/1.0\r\n\r\n' "$command" "$timeout" |
    nc -N "${where[@]}" | sed '1,/^\r*$/d'
}

return 0
