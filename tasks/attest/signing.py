"""Signs statements and checks signatures: DSSE envelopes, made by securesystemslib.

Keys are PEM files: PKCS #8 (or the older forms of OpenSSL) for signing, SubjectPublicKeyInfo for
checking; Ed25519, ECDSA on P-256, P-384 or P-521, RSA. A passphrase comes from the environment
and goes nowhere else. https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSPHRASE_ENV = "CI_SIGN_KEY_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """A key that signs."""

    keyid: str
    signer: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key that signatures are checked with."""

    keyid: str
    kind: str
    key: Any = field(repr=False)


def load_private(path: Path, environ: Mapping[str, str]) -> PrivateKey:
    """Load the key to sign with.

    Args:
        environ: where its passphrase is, under PASSPHRASE_ENV, if it has one.

    Raises:
        BadInput: there is no such file, it is no private key, of a kind that is not supported, or
            its passphrase is missing or wrong.
    """
    raise NotImplementedError


def load_public(path: Path) -> PublicKey:
    """Load the key to check with.

    Raises:
        BadInput: there is no such file, or it is no public key that is supported.
    """
    raise NotImplementedError


def sign(statement: str, key: PrivateKey) -> str:
    """The statement in a signed envelope, as one line of JSON."""
    raise NotImplementedError


def opened(envelope: str, key: PublicKey | None) -> str:
    """The statement in an envelope; its signature is checked if there is a key.

    Raises:
        VerificationFailed: it is no envelope, or not signed with this key.
    """
    raise NotImplementedError
