"""Signs statements and checks signatures: DSSE envelopes, made by securesystemslib.

Keys are PEM files: PKCS #8 (or the older forms of OpenSSL) for signing, SubjectPublicKeyInfo for
checking; Ed25519, ECDSA on P-256, P-384 or P-521, RSA. A passphrase comes from the environment
and goes nowhere else. https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import BadInput, VerificationFailed

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSPHRASE_ENV = "CI_SIGN_KEY_PASSWORD"  # noqa: S105 (the name of a variable)
# What NIST SP 800-57 part 1 still accepts.
LEAST_RSA_BITS = 2048
KINDS = "Ed25519, ECDSA (P-256, P-384, P-521) or RSA"
MAKE_KEY = "`openssl genpkey -algorithm ed25519 -out sign.pem` makes one."
MAKE_PUBLIC = "`openssl pkey -in sign.pem -pubout -out sign.pub.pem` writes it."


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """A key that signs."""

    keyid: str
    signer: CryptoSigner = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A key that signatures are checked with."""

    keyid: str
    kind: str
    key: SSlibKey = field(repr=False)


def load_private(path: Path, environ: Mapping[str, str]) -> PrivateKey:
    """Load the key to sign with.

    Args:
        environ: where its passphrase is, under PASSPHRASE_ENV, if it has one.

    Raises:
        BadInput: there is no such file, it is no private key, of a kind that is not supported, or
            its passphrase is missing or wrong.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    data = content_of(path)
    passphrase = environ.get(PASSPHRASE_ENV, "")
    # For a key without a passphrase, one in the environment does no harm.
    encrypted = b"ENCRYPTED" in data
    if encrypted and not passphrase:
        raise BadInput(
            f"The key {path} is encrypted and there is no passphrase.",
            hint=f"Put it into the environment variable {PASSPHRASE_ENV}.",
        )
    try:
        key = load_pem_private_key(data, passphrase.encode() if encrypted else None)
        signer = CryptoSigner(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What these say is of no use, and may hold part of the key.
        raise BadInput(refusal(path, data, encrypted=encrypted)) from None
    check_strength(path, key)
    return PrivateKey(keyid=signer.public_key.keyid, signer=signer)


def load_public(path: Path) -> PublicKey:
    """Load the key to check with.

    Raises:
        BadInput: there is no such file, or it is no public key that is supported.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    data = content_of(path)
    if b"PRIVATE KEY" in data:
        raise BadInput(
            f"{path} is a private key; signatures are checked with the public one.",
            hint=MAKE_PUBLIC,
        )
    try:
        public = load_pem_public_key(data)
        key = SSlibKey.from_crypto(public)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadInput(
            f"{path} is no public key that can be used; a PEM file with a key for {KINDS} was "
            f"expected. {MAKE_PUBLIC}"
        ) from None
    check_strength(path, public)
    return PublicKey(keyid=key.keyid, kind=key.keytype, key=key)


def content_of(path: Path) -> bytes:
    """The bytes of a key file.

    Raises:
        BadInput: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"The key {path} can't be read: {error.strerror}.", hint=MAKE_KEY) from None


def refusal(path: Path, data: bytes, *, encrypted: bool) -> str:
    """Why a private key is not taken; without a word of what is in it."""
    if b"PUBLIC KEY" in data:
        return f"{path} is a public key; signing takes the private one."
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        return f"{path} is a key in OpenSSH's own format; PEM was expected. {MAKE_KEY}"
    if encrypted:
        return f"The passphrase in {PASSPHRASE_ENV} does not open the key {path}, or it is damaged."
    return (
        f"{path} is no private key that can be used; a PEM file with a key for {KINDS} was "
        f"expected. {MAKE_KEY}"
    )


def check_strength(path: Path, key: Any) -> None:
    """Refuse RSA keys that are too short to vouch for anything.

    Raises:
        BadInput: it is one.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

    if isinstance(key, RSAPrivateKey | RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
        raise BadInput(
            f"The RSA key {path} has {key.key_size} bits; at least {LEAST_RSA_BITS} are needed.",
            hint=MAKE_KEY,
        )


def sign(statement: str, key: PrivateKey) -> str:
    """The statement in a signed envelope, as one line of JSON."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(statement.encode(), PAYLOAD_TYPE, {})
    envelope.sign(key.signer)
    return as_line(envelope)


def opened(envelope: str, key: PublicKey | None) -> str:
    """The statement in an envelope; its signature is checked if there is a key.

    Raises:
        VerificationFailed: it is no envelope, or not signed with this key.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error, UnverifiedSignatureError

    try:
        found = Envelope.from_dict(json.loads(envelope))
        # A signature covers the statement, not how the envelope is written down.
        is_ours = as_line(found) == envelope and found.payload_type == PAYLOAD_TYPE
        statement = found.payload.decode()
    except (Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VerificationFailed("it is no signed statement") from None
    if not is_ours or len(found.signatures) != 1:
        raise VerificationFailed("it is not as it was signed and written")
    if key is None:
        return statement
    signer = next(iter(found.signatures))
    if signer != key.keyid:
        raise VerificationFailed(
            f"it is signed with the key {brief(signer)}, "
            f"not with yours, {brief(key.keyid)} ({key.kind})"
        )
    try:
        found.verify([key.key], threshold=1)
    except UnverifiedSignatureError:
        raise VerificationFailed("its signature is not good: it is not what was signed") from None
    return statement


def as_line(envelope: Envelope) -> str:
    """An envelope as its file has it."""
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")) + "\n"


def brief(keyid: str) -> str:
    """As much of a key's id as one compares by eye."""
    return keyid[:16]
