"""The password of DSM's administrator, and texts without it."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import sys
from urllib.parse import quote, quote_plus

PASSWORD_VARIABLE = "DSM_ADMIN_PASS"  # noqa: S105 - its name only
DEFAULT_PASSWORD = "F4k3Pass1!"  # noqa: S105 - of throw-away machines, and documented


def admin_password() -> str:
    """The password of DSM's administrator."""
    return os.environ.get(PASSWORD_VARIABLE) or DEFAULT_PASSWORD


@functools.cache
def spellings(secret: str) -> tuple[str, ...]:
    """The ways in which a text can stand in a page, a request or a trace; longest first."""
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    in_json |= {json.dumps(text)[1:-1] for text in in_json}  # JSON in JSON
    plain = {secret, html.escape(secret), html.escape(secret, quote=False), *in_json}
    encoded = {quote(text, safe="") for text in plain} | {quote_plus(text) for text in plain}
    in_base64 = base64.b64encode(secret.encode()).decode()
    return tuple(sorted({*plain, *encoded, in_base64}, key=len, reverse=True))


def hidden(text: str) -> str:
    """`text` without the password."""
    for spelling in spellings(admin_password()):
        text = text.replace(spelling, "********")
    return text


def say(text: str) -> None:
    """Write a line for whoever watches."""
    print(hidden(text), file=sys.stderr, flush=True)
