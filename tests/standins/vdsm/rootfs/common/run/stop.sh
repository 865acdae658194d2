#!/usr/bin/env bash
# What happens at `docker stop`: DSM is asked to shut down, and QEMU is ended if it doesn't.
# DSM ignores the power button, so it is asked through its agent.

qemuPid () { [ -s "$QEMU_PID" ] && cat "$QEMU_PID"; }

# Waits for QEMU's end; status 1 if it is still there after a number of seconds.
awaitEnd () {
  local pid="$1" limit="$2"
  timeout "$limit" tail --sleep-interval=0.1 --pid="$pid" -f /dev/null
}

finish () {
  local status="$1" pid
  touch "$QEMU_END"
  if pid=$(qemuPid); then
    kill -TERM "$pid" 2>/dev/null && { awaitEnd "$pid" 10 || kill -KILL "$pid" 2>/dev/null; }
  fi
  rm -f "$QEMU_PID"
  closeNAT
  info "Shutdown completed!"
  exit "$status"
}

shutDown () {
  local signal="$1" status="$2" pid answer
  set +e
  trap - ERR
  if [ -f "$QEMU_END" ]; then
    info "Received $signal signal while already shutting down..."
    return 0
  fi
  touch "$QEMU_END"
  info "Received $signal signal, sending shutdown command..."
  pid=$(qemuPid) || finish "$status"
  answer=$(askAgent 6 "$API_TIMEOUT")
  if [[ "$answer" == *'"success"'* ]]; then
    info "Virtual DSM is now ready to shutdown..."
  else
    answer=$(sed -n 's/.*"message": "\(.*\)".*/\1/p' <<<"$answer")
    warn "Forcefully terminating because of: ${answer:-no answer from host.bin}"
    kill -TERM "$pid" 2>/dev/null
  fi
  awaitEnd "$pid" "$QEMU_TIMEOUT" || warn "QEMU did not end within $QEMU_TIMEOUT seconds."
  finish "$status"
}

# The fault die-after-boot, once QEMU runs.
dieLater () {
  local seconds
  seconds=$(fault die-after-boot 3) || return 0
  { sleep "$seconds" && kill -KILL "$(<"$QEMU_PID")"; } &
}

return 0
