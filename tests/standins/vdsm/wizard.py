"""The web side of the Virtual-DSM stand-in: the pages of DSM's wizard, its API, its NFS port.

Needs nothing but Python 3.11, so that it runs in a small emulated guest. It shows the elements
that the real pages have (identifiers and texts only) and keeps their state here: a page that is
opened anew goes on where the last one was. `--state` survives a restart, sessions don't.

Its misbehaviour is chosen by `--faults`, words separated by commas: see FAULTS.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import html
import json
import os
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Every fault: its word and, after `=`, what the value is if none is given (absent: takes none).
# SCREEN is a name of WIZARD, or welcome, admin, login, desktop, control-panel, file-services, nfs.
FAULTS: dict[str, str | None] = {
    "late": "35",  # SECONDS for which the page is blank before the first screen, and after admin
    "unknown": "experience",  # SCREEN after which a screen comes that nobody has seen before
    "unknown-dialog": None,  # a dialog that nobody knows covers the desktop
    "missing": "account",  # SCREEN that never comes
    "reordered": None,  # the screens come in the reverse order
    "repeated": "two-factor",  # SCREEN that comes again after the next one
    "duplicated": "account",  # SCREEN whose elements are there twice
    "hidden-twin": "admin",  # SCREEN before which a hidden copy of it stands in the document
    "dead-click": "",  # SCREEN where the first click does nothing; empty: every screen
    "popup": "1",  # SECONDS after which the notification panel comes over a finished desktop
    "reject-password": None,  # the admin form shows a message and stays
    "slow-admin": "5",  # SECONDS that the creation of the admin takes
    "lost-admin": None,  # the first submitted admin form is lost: connection reset, nothing done
    "reset-after-admin": "3",  # SECONDS for which connections are reset after the admin exists
    "502-after-admin": "3",  # SECONDS for which everything is answered by 502 after that
    "session-lost": "desktop",  # SCREEN at whose first show all sessions are forgotten
    "nfs-on": None,  # NFS is on from the beginning
    "nfs-forgets": None,  # says "Changes applied" and changes nothing
    "stale-applied": None,  # "Changes applied" is visible before anything was applied
    "slow-apply": "5",  # SECONDS that applying takes
    "apply-error": None,  # Apply is answered by an error
    "reloads": None,  # the page loads itself anew where others only change
    "busy-network": None,  # the page never stops making requests
    "api-down": "",  # SECONDS from its first call for which the API answers 502; empty: always
    "placeholder": "3",  # SECONDS from the first request for which DSM isn't there, but
    # what upstream's container shows instead
}

# What every screen of the wizard consists of, in DSM's order. %s is the action of the button.
WIZARD: dict[str, str] = {
    "update": """<div class="welcome-step"><div class="welcome-step-title">Select an update option
      for your VirtualDSM</div><div class="v-radio-wrapper"
      syno-id="welcome-app-select-update-radio-auto">Automatically</div>
      <div class="v-radio-wrapper" data-choice syno-id="welcome-app-select-update-radio-notify">
      Notify me</div><button class="v-btn-main" data-do="next">Next</button></div>""",
    "account": """<div class="welcome-step"><div class="welcome-step-title">
      <span>Create a Synology Account</span></div>
      <button syno-id="welcome-app-wizard-fbar-back" data-do="next">Skip</button>
      <button syno-id="welcome-app-wizard-fbar-next" data-do="wrong">Next</button></div>""",
    "experience": """<div class="welcome-step"><div class="welcome-step-title">
      Opt-in for a better user experience</div>
      <button syno-id="welcome-app-wizard-fbar-back" data-do="wrong">Back</button>
      <button syno-id="welcome-app-wizard-fbar-next" data-do="next">Submit</button></div>""",
    "file-access": """<div class="window"><div class="title">
      Securely Access and Share Files From Anywhere</div>
      <button syno-id="syno-promotion-preinstall-btn-install" data-do="wrong">Install</button>
      <button syno-id="syno-promotion-preinstall-btn-skip" data-do="next">No, thanks</button>
      </div>""",
    "two-factor": """<div class="window"><div class="title">
      Enable 2-Factor Authentication (2FA)</div>
      <button syno-id="syno-promotion-ss-btn-skip" data-do="next">No, thanks</button></div>""",
    "adaptive-mfa": """<div class="window"><div class="title">
      Protect your account with Adaptive MFA</div><button
      syno-id="syno-promotion-manually-amfa-btn-give-up" data-do="next">No, thanks</button>
      </div>""",
    "mfa-warning": """<div class="window"><div class="dialog-content">
      We strongly recommend enabling 2FA or Adaptive MFA to protect your account.</div><button
      syno-id="promotion-app-window-msgbox-fbar-commit" data-do="next">OK</button></div>""",
    "notification": """<div class="window v-notification-panel"><div
      class="v-notification-title">Notification Setup</div>
      <i class="close-btn window-tool-close" data-do="next">x</i></div>""",
    "notification-reminder": """<div class="window"><div class="dialog-content">
      You can enable notifications later at Control Panel.</div><button
      syno-id="window-manager-msg-box-fbar-commit" data-do="next">OK</button></div>""",
}
# DSM shows these over the desktop.
OVER_DESKTOP = ("notification", "notification-reminder", "unknown-dialog")
OTHER_SCREENS: dict[str, str] = {
    "welcome": """<div class="welcome-page"><button class="welcome-page-btn"
      data-do="start">Start</button></div>""",
    "admin": """<div class="welcome-step">
      <div class="welcome-step-title">Get started with your VirtualDSM</div>
      <div><span>Device name</span><input id="syno-0" name="server"></div>
      <div><span>Administrator account</span><input id="syno-1" name="user"></div>
      <div><span>Password</span><input id="syno-2" type="password" name="password"></div>
      <div><span>Confirm password</span><input id="syno-3" type="password" name="confirm"></div>
      <div class="v-form-item-error">%s</div>
      <button class="v-btn-main" data-do="create">Next</button></div>""",
    "login": """<form class="login-panel" onsubmit="return false">
      <input syno-id="username" name="user" data-enter="login-user">
      <input syno-id="password" name="password" type="password" data-enter="login" hidden>
      <div class="login-error">%s</div></form>""",
    "unknown": """<div class="welcome-step"><div class="welcome-step-title">
      Choose the colour of your VirtualDSM</div>
      <button syno-id="welcome-app-colour-next" data-do="next">Green</button></div>""",
    "unknown-dialog": """<div class="window"><div class="dialog-content">
      What is new in this version</div><button syno-id="whats-new" data-do="next">OK</button>
      </div>""",
    "blank": "<div></div>",
    "desktop": """<div class="desktop"><ul><li class="icon-item"
      syno-id="SYNO.SDS.PkgManApp.Instance"><div elementtiming="desktop-item-title">Package<br>
      Center</div></li><li class="icon-item" syno-id="SYNO.SDS.AdminCenter.Application"
      data-do="control-panel"><div elementtiming="desktop-item-title">Control<br>Panel</div>
      </li></ul></div>%s""",
    "control-panel": """<div class="app"><div fn="SYNO.SDS.AdminCenter.Share.Main">Shared
      Folder</div><div fn="SYNO.SDS.AdminCenter.FileService.Main" data-do="file-services">File
      Services</div></div>""",
    "file-services": """<div class="app"><span class="x-tab-strip-text">SMB</span>
      <span class="x-tab-strip-text" data-do="nfs">NFS</span>
      <span class="x-tab-strip-text">NFS Kerberos</span></div>""",
    "nfs": """<div class="app"><span class="x-tab-strip-text">NFS</span><div>
      <input type="checkbox" name="enable_nfs" style="display:none" %s
      ><div class="syno-ux-checkbox-icon" data-toggle></div>Enable NFS service</div>
      <button class="x-btn-text" data-do="apply">Apply</button>
      <button class="x-btn-text">Reset</button>%s</div>""",
}
APPLIED = '<div class="syno-ux-statusbar-success">Changes applied.</div>'
NOT_APPLIED = '<div class="syno-ux-statusbar-error">The operation failed (error 1101).</div>'
PASSWORD_RULE = (
    "The password must have at least 8 characters, with upper and lower case letters and digits."
)
NAME_RULE = "The name may have letters, digits and hyphens only."
WRONG_LOGIN = "Your username or password is incorrect."

PAGE = """<!DOCTYPE html><html><head><title>%s</title><style>
 body { margin: 0; font: 16px sans-serif; background: #dde6ee; }
 .window { position: fixed; z-index: 2; top: 90px; left: 390px; width: 500px; padding: 20px;
   background: #fff; }
 .mask { position: fixed; z-index: 1; inset: 0; background: #0004; }
 .welcome-page, .welcome-step, .login-panel, .app { padding: 60px 120px; }
 .icon-item { display: inline-block; width: 90px; }
 .syno-ux-checkbox-icon { display: inline-block; width: 16px; height: 16px; background: #999; }
 input:checked + .syno-ux-checkbox-icon { background: #06c; }
 .chosen { font-weight: bold; } .v-form-item-error, .login-error { color: #c00; }
</style></head><body><div id="app"></div><script>
 let ui = {};
 const busy = %s, reloads = %s;
 const app = document.getElementById("app");
 function show(next) {
   ui = next;
   app.innerHTML = ui.html;
   if (ui.again_ms) setTimeout(() => ask("/ui/screen?view=" + ui.view), ui.again_ms);
 }
 async function ask(path, body) {
   try {
     const answer = await fetch(path, body && {method: "POST", body: JSON.stringify(body)});
     if (!answer.ok) return;
     const next = await answer.json();
     const stays = !body || ["welcome", next.screen].includes(ui.screen);
     if (reloads && !stays) location.reload();
     else show(next);
   } catch (error) { console.log(error); }
 }
 function act(action) {
   const values = {}, choice = app.querySelector(".chosen");
   for (const input of app.querySelectorAll("input"))
     if (input.offsetParent || input.type == "checkbox")
       values[input.name] = input.type == "checkbox" ? input.checked : input.value;
   if (choice) values.choice = choice.getAttribute("syno-id");
   ask("/ui/act", {screen: ui.screen, view: ui.view, action, values});
 }
 app.addEventListener("click", (event) => {
   const target = event.target.closest("[data-do], [data-toggle], .v-radio-wrapper");
   if (!target) return;
   if (ui.dead) { ui.dead = false; return; }
   if (target.matches(".v-radio-wrapper")) {
     for (const other of app.querySelectorAll(".chosen")) other.classList.remove("chosen");
     target.classList.add("chosen");
   }
   else if (target.matches("[data-toggle]")) {
     const box = target.previousElementSibling;
     box.checked = !box.checked;
   } else act(target.dataset.do);
 });
 app.addEventListener("keydown", (event) => {
   const action = event.key == "Enter" && event.target.dataset.enter;
   if (!action) return;
   if (ui.dead) { ui.dead = false; return; }
   if (action == "login-user") app.querySelector("[syno-id=password]").hidden = false;
   else act(action);
 });
 ask("/ui/screen?view=desktop");
 if (busy) setInterval(() => fetch("/ui/poll", {method: "POST"}), 200);
</script></body></html>"""
PLACEHOLDER = """<!DOCTYPE html><html><head><title>Virtual DSM</title></head>
 <body><svg id="spinner"></svg><h1 id="info">Booting DSM</h1><footer id="footer"></footer>
</body></html>"""

APIS = {
    "SYNO.API.Auth": {"path": "entry.cgi", "minVersion": 1, "maxVersion": 7},
    "SYNO.API.Info": {"path": "entry.cgi", "minVersion": 1, "maxVersion": 1},
}
SLOW = {"create": "slow-admin", "apply": "slow-apply"}  # action: fault
SHORT_PAUSE_MS = 200  # between two looks of a page that waits for its next screen


def parse_faults(words: str) -> dict[str, str]:
    """The faults that a command line names, with their values.

    Raises:
        ValueError: there is no such fault, or it takes no value.
    """
    faults = {}
    for word in filter(None, words.split(",")):
        name, _, value = word.partition("=")
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
        default = FAULTS[name]
        if default is None and value:
            raise ValueError(f"fault {name!r} takes no value")
        faults[name] = value or default or ""
    return faults


def screens_to_come(faults: dict[str, str]) -> list[str]:
    """The names of the wizard's screens after the admin form, as the faults want them."""
    names = list(WIZARD)
    if "missing" in faults:
        names.remove(faults["missing"])
    if "reordered" in faults:
        names.reverse()
    if "repeated" in faults:
        names.insert(names.index(faults["repeated"]) + 2, faults["repeated"])
    if "unknown" in faults:
        names.insert(names.index(faults["unknown"]) + 1, "unknown")
    if "unknown-dialog" in faults:
        names.append("unknown-dialog")
    return names


def digest(salt: str, password: str) -> str:
    """What is kept of a password."""
    return hashlib.sha256(f"{salt}{password}".encode()).hexdigest()


class Dsm:
    """What this DSM has been told so far, and what it does next.

    Args:
        state: the file that keeps it over a restart.
        on_nfs: called when NFS is switched on.
    """

    def __init__(self, state: Path, faults: dict[str, str], on_nfs: Callable[[], None]) -> None:
        self.faults = faults
        self.lock = threading.RLock()
        self.sessions: set[str] = set()
        self._state = state
        self._on_nfs = on_nfs
        self._seen: dict[str, float] = {}
        self._down_until = 0.0
        self._down_by = ""
        self.kept: dict[str, Any] = {
            "server": "",
            "admin": None,
            "left": screens_to_come(faults),
            "nfs": "nfs-on" in faults,
        }
        if state.exists():
            self.kept = json.loads(state.read_text())
        if self.kept["nfs"]:
            on_nfs()

    def save(self) -> None:
        """Write the state aside, then rename: the guest may be killed at any time."""
        aside = self._state.with_name(f"{self._state.name}.new")
        with aside.open("w") as stream:
            json.dump(self.kept, stream)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self._state)

    def once(self, what: str) -> bool:
        """Whether this is the first question about it."""
        with self.lock:
            first = what not in self._seen
            self._seen.setdefault(what, time.monotonic())
            return first

    def within(self, what: str, seconds: str) -> bool:
        """Whether the first question about it is not `seconds` ago (empty: for ever)."""
        self.once(what)
        return not seconds or time.monotonic() - self._seen[what] < float(seconds)

    def down(self) -> str:
        """The fault that stops every answer now; empty if none does."""
        return self._down_by if time.monotonic() < self._down_until else ""

    def placeholder(self) -> bool:
        return "placeholder" in self.faults and self.within("web", self.faults["placeholder"])

    def api_down(self) -> bool:
        return "api-down" in self.faults and self.within("API", self.faults["api-down"])

    def login_is_right(self, user: str, password: str) -> bool:
        admin = self.kept["admin"]
        return bool(
            admin
            and admin["user"] == user
            and secrets.compare_digest(admin["digest"], digest(admin["salt"], password))
        )

    def new_session(self) -> str:
        sid = secrets.token_urlsafe(24)
        self.sessions.add(sid)
        return sid

    # Screens

    def screen_for(self, sid: str) -> str:
        """The name of the screen that a page with this session shows."""
        if self.kept["admin"] is None:
            return self._late("welcome")
        if sid not in self.sessions:
            return "login"
        left = self.kept["left"]
        following = left[0] if left else "desktop"
        if self.faults.get("session-lost") == following and self.once("session-lost"):
            self.sessions.clear()
            return "login"
        if following == "notification" and "popup" in self.faults:
            return "desktop" if self.within("popup", self.faults["popup"]) else following
        return self._late(following)

    def _late(self, screen: str) -> str:
        """The screen, or a blank one as long as the fault `late` says so."""
        first = screen == "welcome" or self.kept["left"] == screens_to_come(self.faults)
        if "late" in self.faults and first and self.within(f"late {screen}", self.faults["late"]):
            return "blank"
        return screen

    def shown(self, screen: str, view: str = "", message: str = "") -> dict[str, Any]:
        """A screen as the page's script wants it."""
        name = (view or screen) if screen == "desktop" else screen
        wanted = self.faults.get("dead-click")
        dead = wanted is not None and wanted in ("", name) and self.once(f"dead {name}")
        waiting = screen == "blank" or (screen == "desktop" and self.kept["left"])
        return {
            "screen": screen,
            "view": view,
            "html": self._html(screen, view, message),
            "dead": dead,
            "again_ms": SHORT_PAUSE_MS if waiting else 0,
        }

    def _html(self, screen: str, view: str, message: str) -> str:
        if screen == "desktop":
            return self._desktop(view, message)
        body = WIZARD.get(screen) or OTHER_SCREENS[screen]
        if "%s" in body:
            body %= html.escape(message)
        if self.faults.get("hidden-twin") == screen:
            body = f'<div style="display:none">{body}</div>{body}'
        if self.faults.get("duplicated") == screen:
            body += body
        if screen in OVER_DESKTOP:
            return self._desktop("", "") + f'<div class="mask"></div>{body}'
        return body

    def _desktop(self, view: str, message: str) -> str:
        window = OTHER_SCREENS[view] if view in ("control-panel", "file-services", "nfs") else ""
        if view == "nfs":
            stale = APPLIED if "stale-applied" in self.faults else ""
            window %= ("checked" if self.kept["nfs"] else "", message or stale)
        return OTHER_SCREENS["desktop"] % window

    # Actions

    def act(self, action: str, said: dict[str, Any], sid: str) -> tuple[dict[str, Any], str]:
        """Do what was clicked; returns what is shown next, and the id of a new session or ""."""
        screen, view, values = said["screen"], said["view"], said["values"]
        if action == "start":
            return self.shown("admin"), ""
        if action in ("create", "login"):
            if message := self.create_admin(values) if action == "create" else self.login(values):
                return self.shown(screen, message=message), ""
            sid = self.new_session()
            return self.shown(self.screen_for(sid)), sid
        if sid not in self.sessions:
            return self.shown("login"), ""
        if action == "next":
            self.finish(screen, values)
            return self.shown(self.screen_for(sid)), ""
        if action == "apply":
            message = self.apply_nfs(bool(values.get("enable_nfs")))
            return self.shown(screen, view, message), ""
        return self.shown(screen, view if action == "wrong" else action), ""

    def login(self, values: dict[str, Any]) -> str:
        """What is wrong with a submitted login form; empty if nothing."""
        right = self.login_is_right(str(values.get("user")), str(values.get("password")))
        return "" if right else WRONG_LOGIN

    def create_admin(self, values: dict[str, Any]) -> str:
        """Create the admin of a submitted form; returns what is wrong with it, empty if nothing."""
        password = str(values.get("password", ""))
        strong = len(password) >= 8 and all(
            re.search(kind, password) for kind in ("[a-z]", "[A-Z]", "[0-9]")
        )
        if not strong or "reject-password" in self.faults:
            return PASSWORD_RULE
        if password != values.get("confirm"):
            return "The passwords do not match."
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,14}", str(values.get("server"))):
            return NAME_RULE
        if self.kept["admin"] is not None:
            return "This user exists already."
        salt = secrets.token_hex(8)
        self.kept["server"] = values["server"]
        self.kept["admin"] = {
            "user": values["user"],
            "salt": salt,
            "digest": digest(salt, password),
        }
        self.save()
        for fault in ("reset-after-admin", "502-after-admin"):
            if fault in self.faults:
                self._down_by = fault
                self._down_until = time.monotonic() + float(self.faults[fault])
        return ""

    def finish(self, screen: str, values: dict[str, Any]) -> None:
        """Go on from a screen of the wizard, if it is the current one and is filled in."""
        chosen = str(values.get("choice", "")).endswith("notify") or screen != "update"
        if chosen and self.kept["left"][:1] == [screen]:
            del self.kept["left"][0]
            self.save()

    def apply_nfs(self, wanted: bool) -> str:
        """Switch NFS; returns the element that says how it went."""
        if "apply-error" in self.faults:
            return NOT_APPLIED
        if "nfs-forgets" not in self.faults:
            self.kept["nfs"] = wanted
            self.save()
            if wanted:
                self._on_nfs()
        return APPLIED


class Handler(BaseHTTPRequestHandler):
    """Answers the browser and the API's clients."""

    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        dsm = self.server.dsm
        url = urlsplit(self.path)
        if fault := dsm.down():
            self._break(fault)
        elif dsm.placeholder():
            text = "<p>Booting</p>" if url.path == "/msg.html" else PLACEHOLDER
            self._send(200, "text/html", text)
        elif url.path == "/":
            self._send(200, "text/html", PAGE % self._head())
        elif url.path == "/ui/screen":
            view = parse_qs(url.query).get("view", [""])[0]
            with dsm.lock:
                self._send_json(dsm.shown(dsm.screen_for(self._sid()), view))
        elif url.path == "/ui/act":
            self._act(json.loads(body))
        elif url.path == "/ui/poll":
            self._send_json({})
        elif url.path.startswith("/webapi/"):
            query = parse_qs(url.query) | parse_qs(body.decode(errors="replace"))
            self._api({name: values[0] for name, values in query.items()})
        else:
            self._send(404, "text/plain", "Not found")

    def _head(self) -> tuple[str, ...]:
        """What PAGE lacks."""
        dsm = self.server.dsm
        title = html.escape(dsm.kept["server"] or "Synology VirtualDSM")
        return title, *(json.dumps(name in dsm.faults) for name in ("busy-network", "reloads"))

    def _act(self, said: dict[str, Any]) -> None:
        """Do what was clicked and show the screen that follows."""
        dsm = self.server.dsm
        action = said["action"]
        if action == "create" and "lost-admin" in dsm.faults and dsm.once("lost-admin"):
            return self._break("reset-after-admin")
        time.sleep(float(dsm.faults.get(SLOW.get(action, ""), 0)))
        with dsm.lock:
            shown, cookie = dsm.act(action, said, self._sid())
        if fault := dsm.down():
            return self._break(fault)
        return self._send_json(shown, cookie)

    def _api(self, query: dict[str, str]) -> None:
        """The calls of Synology's public Login Web API guide that are needed here."""
        dsm = self.server.dsm
        if dsm.api_down():
            return self._send(502, "text/html", "<h1>502 Bad Gateway</h1>")
        match query.get("api"), query.get("method"):
            case "SYNO.API.Info", "query":
                return self._send_json({"success": True, "data": APIS})
            case "SYNO.API.Auth", "login":
                if dsm.login_is_right(query.get("account", ""), query.get("passwd", "")):
                    sid = dsm.new_session()
                    cookie = "" if query.get("format") == "sid" else sid
                    return self._send_json({"success": True, "data": {"sid": sid}}, cookie)
                code = 400  # no such account, or another password
            case "SYNO.API.Auth", "logout":
                dsm.sessions.discard(query.get("_sid", self._sid()))
                return self._send_json({"success": True})
            case "SYNO.API.Auth" | "SYNO.API.Info", _:
                code = 103  # no such method
            case _:
                code = 102  # no such API
        return self._send_json({"success": False, "error": {"code": code}})

    def _sid(self) -> str:
        cookies = dict(
            pair.strip().partition("=")[::2] for pair in self.headers.get("Cookie", "").split(";")
        )
        return str(cookies.get("id", ""))

    def _break(self, fault: str) -> None:
        """Answer as the fault wants: 502, or a TCP reset."""
        if fault.startswith("502"):
            return self._send(502, "text/html", "<h1>502 Bad Gateway</h1>")
        # Zero linger time makes close(2) send RST, see socket(7).
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        self.close_connection = True
        return None

    def _send_json(self, content: dict[str, Any], cookie: str = "") -> None:
        self._send(200, "application/json", json.dumps(content), cookie)

    def _send(self, status: int, kind: str, text: str, cookie: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if cookie:
            self.send_header("Set-Cookie", f"id={cookie}; Path=/; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep the guest's console for what matters."""


class Web(ThreadingHTTPServer):
    """DSM's web server."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], dsm: Dsm) -> None:
        super().__init__(address, Handler)
        self.dsm = dsm

    def server_bind(self) -> None:
        """Bind without asking a name server for our name, which a guest may not have."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers go away in the middle; anything else is a mistake in this file."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class NfsCall(socketserver.StreamRequestHandler):
    """Answers NULL calls of NFS 3 and 4 over TCP, and nothing more (RFC 5531, section 9 and 11)."""

    def handle(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            while head := self.rfile.read(4):
                call = self.rfile.read(struct.unpack(">I", head)[0] & 0x7FFFFFFF)
                xid, kind, _, program, version, procedure = struct.unpack(">6I", call[:24])
                if kind != 0:  # not a call
                    return
                status: tuple[int, ...]
                if program != 100003:
                    status = (1,)  # PROG_UNAVAIL
                elif version not in (3, 4):
                    status = (2, 3, 4)  # PROG_MISMATCH, lowest, highest
                else:
                    status = (0,) if procedure == 0 else (3,)  # SUCCESS, PROC_UNAVAIL
                # A reply, accepted, with an empty verifier.
                reply = struct.pack(f">{5 + len(status)}I", xid, 1, 0, 0, 0, *status)
                self.wfile.write(struct.pack(">I", 0x80000000 | len(reply)) + reply)


class Nfs(socketserver.ThreadingTCPServer):
    """The NFS port."""

    allow_reuse_address = True
    daemon_threads = True


def opener(host: str, port: int) -> Callable[[], None]:
    """A function that opens the NFS port when it is called for the first time."""
    opened: list[Nfs] = []

    def open_port() -> None:
        if not opened:
            opened.append(Nfs((host, port), NfsCall))
            threading.Thread(target=opened[0].serve_forever, daemon=True).start()

    return open_port


def main() -> None:
    """Serve until killed; the first line of stdout says the port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000, help="0: a free one")
    parser.add_argument("--nfs-port", type=int, default=2049)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--faults", default="", metavar="WORD[=VALUE],...")
    options = parser.parse_args()
    try:
        faults = parse_faults(options.faults)
    except ValueError as error:
        parser.error(str(error))
    dsm = Dsm(options.state, faults, opener(options.host, options.nfs_port))
    with Web((options.host, options.port), dsm) as web:
        print(f"serving on {options.host}:{web.server_address[1]}", flush=True)
        web.serve_forever()


if __name__ == "__main__":
    main()
