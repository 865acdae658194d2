"""DSM's API: whether it is there, and whether a login works.

By Synology's "DSM Login Web API Guide".
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from scripts.dsm.connection import Retry
from scripts.dsm.failures import Failed, Gone, LoginFailed, TimedOut
from scripts.dsm.session import Dsm

# Why SYNO.API.Auth refuses.
AUTH = {"api": "SYNO.API.Auth", "version": "6"}
WRONG_PASSWORD = 400
LOGIN_ERRORS = {
    WRONG_PASSWORD: "no such account, or another password",
    401: "the account is disabled",
    402: "permission denied",
    403: "a 2-factor code is required",
    404: "the 2-factor code is wrong",
    406: "2-factor authentication is enforced",
    407: "this address is blocked after too many failed logins",
    408: "the password has expired and cannot be changed",
    409: "the password has expired",
    410: "the password must be changed",
}

REQUEST_S = 10.0  # for one call; --slow multiplies it


def wait_for_api(dsm: Dsm) -> None:
    """Wait until DSM itself answers: its web server comes up earlier, and others' before that."""
    call_api(dsm, is_success, api="SYNO.API.Info", version="1", method="query")


def require_login(dsm: Dsm) -> None:
    """Raise LoginFailed if DSM does not accept the account and password."""
    if not login_works(dsm):
        raise LoginFailed(
            f"DSM does not let {dsm.account.user} log in with the password of DSM_ADMIN_PASS."
        )


def login_works(dsm: Dsm) -> bool:
    """Log in and out by DSM's API; False if the account or the password is wrong.

    Raises:
        LoginFailed: DSM has another reason not to let the account in.
    """
    login = {"account": dsm.account.user, "passwd": dsm.account.password, "format": "sid"}
    answer = call_api(dsm, is_about_login, **AUTH, method="login", **login)
    if is_success(answer):
        call_api(dsm, bool, **AUTH, method="logout", _sid=answer["data"]["sid"])
        return True
    if (code := answer["error"]["code"]) != WRONG_PASSWORD:
        raise LoginFailed(f"DSM refuses the login: {LOGIN_ERRORS[code]} (code {code}).")
    return False


def is_success(answer: dict[str, Any]) -> bool:
    """Whether the API did what it was asked for."""
    return answer.get("success") is True


def is_about_login(answer: dict[str, Any]) -> bool:
    """Whether the API let somebody in, or says why not; else it isn't ready."""
    return is_success(answer) or answer.get("error", {}).get("code") in LOGIN_ERRORS


def call_api(
    dsm: Dsm, answers: Callable[[dict[str, Any]], bool], **parameters: str
) -> dict[str, Any]:
    """Call DSM's API until it answers; not by the browser, which would record the password.

    Args:
        answers: whether what came is an answer, and not a DSM that isn't ready.

    Raises:
        Gone: nothing answers at all.
        TimedOut: something answers, but not DSM's API.
    """
    # By POST, so that no password is in an address; and never by a proxy.
    body = urllib.parse.urlencode(parameters).encode()
    client = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    retry = Retry(dsm, "DSM's API")
    while True:
        failure: type[Failed] = TimedOut
        try:
            limit_s = retry.limit_ms(REQUEST_S) / 1000
            with client.open(f"{dsm.url}/webapi/entry.cgi", body, limit_s) as stream:
                answer = json.load(stream)
            if isinstance(answer, dict) and answers(answer):
                return answer
            why = f"it is not ready ({answer})"
        except urllib.error.HTTPError as error:
            why = f"HTTP status {error.code}"
        except ValueError:
            why = "another page is there"
        except (OSError, http.client.HTTPException) as error:
            why, failure = str(error) or repr(error), Gone
        retry.after(why, failure)
