#!/usr/bin/env bash
# The placeholder on port 5000, which tells a browser how far we are until DSM is there.

: "${WEB:=Y}"
: "${WEB_PORT:=5000}"
WEB_PID="/run/shm/web.pid"

# Shows one line in the browser.
html () {
  printf '<p class="loading">%s</p>\n' "$1" >/run/shm/msg.new
  mv -f /run/shm/msg.new /run/shm/msg.html
  cat >/run/shm/index.new <<PAGE
<!DOCTYPE html>
<html><head><title>Virtual DSM</title></head>
<body><svg id="spinner"></svg><h1 id="info">$1</h1><footer id="footer">Virtual DSM</footer>
<script>
setInterval(() => fetch("/msg.html").then(async answer => {
  if (answer.status === 404) location.reload();
  document.getElementById("info").innerHTML = await answer.text();
}), 1000);
</script></body></html>
PAGE
  mv -f /run/shm/index.new /run/shm/index.html
}

startWeb () {
  html "Starting Virtual DSM..."
  no "$WEB" && return 0
  busybox httpd -f -p "$WEB_PORT" -h /run/shm &
  echo "$!" >"$WEB_PID"
}

stopWeb () {
  local pid
  [ -f "$WEB_PID" ] || return 0
  pid=$(<"$WEB_PID")
  rm -f "$WEB_PID"
  kill "$pid" 2>/dev/null || :
  wait "$pid" 2>/dev/null || :
}

return 0
