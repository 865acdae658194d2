"""Signatures: every kind of key, and every way in which a key or an envelope is no good."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tasks.attest import signing
from tasks.attest.signing import PASSPHRASE_ENV, load_private, load_public, opened, sign
from tasks.core.errors import BadInput, VerificationFailed
from tests.unit.attested import private_pem, write_keys

STATEMENT = '{"_type": "https://in-toto.io/Statement/v1", "subject": []}\n'
PASSPHRASE = "correct horse"
KINDS = ("ed25519", "ecdsa", "p384", "rsa")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_opens_with_the_public_key(tmp_path: Path, kind: str) -> None:
    private, public = write_keys(tmp_path, kind)
    envelope = sign(STATEMENT, load_private(private, {}))
    assert envelope.endswith("}\n")
    assert envelope.count("\n") == 1
    assert opened(envelope, load_public(public)) == STATEMENT
    assert opened(envelope, None) == STATEMENT


def pae(envelope: dict[str, Any]) -> bytes:
    """What is signed: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md."""
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    return b" ".join(
        (b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_others_can_check_the_signature(tmp_path: Path, kind: str) -> None:
    private, public = write_keys(tmp_path, kind)
    envelope = json.loads(sign(STATEMENT, load_private(private, {})))
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    key: Any = load_pem_public_key(public.read_bytes())
    hashed = hashes.SHA384() if kind == "p384" else hashes.SHA256()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    how: dict[str, tuple[Any, ...]] = {"ed25519": (), "rsa": (pss, hashed)}
    key.verify(signature, pae(envelope), *how.get(kind, (ec.ECDSA(hashed),)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_key_opens_with_its_passphrase_from_the_environment(
    tmp_path: Path, kind: str
) -> None:
    private, public = write_keys(tmp_path, kind, PASSPHRASE)
    key = load_private(private, {PASSPHRASE_ENV: PASSPHRASE})
    assert opened(sign(STATEMENT, key), load_public(public)) == STATEMENT
    assert PASSPHRASE not in repr(key)


def test_an_encrypted_key_without_its_passphrase(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "ed25519", PASSPHRASE)
    with pytest.raises(BadInput, match="is encrypted and there is no passphrase") as caught:
        load_private(private, {})
    assert PASSPHRASE_ENV in str(caught.value)


def test_an_encrypted_key_with_another_passphrase(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "ed25519", PASSPHRASE)
    with pytest.raises(BadInput, match="does not open the key") as caught:
        load_private(private, {PASSPHRASE_ENV: "wrong battery"})
    assert "battery" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_passphrase_that_no_key_needs_does_no_harm(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "ed25519")
    assert load_private(private, {PASSPHRASE_ENV: PASSPHRASE}).keyid


def damaged(pem: bytes) -> bytes:
    return pem[: len(pem) // 2] + b"\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no private key that can be used"),
        (b"\x00\xff" * 50, "is no private key that can be used"),
        (damaged(private_pem("ed25519")), "is no private key that can be used"),
        (damaged(private_pem("rsa")), "is no private key that can be used"),
        (private_pem("k1"), "is no private key that can be used"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "OpenSSH's own format"),
        (private_pem("short rsa"), "has 1024 bits; at least 2048"),
    ],
)
def test_a_file_that_is_no_key_to_sign_with(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "sign.pem"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words) as caught:
        load_private(path, {})
    assert str(path) in str(caught.value)
    assert private_pem("ed25519").splitlines()[1][:20].decode() not in str(caught.value)


def test_a_public_key_does_not_sign_and_a_private_one_does_not_check(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ecdsa")
    with pytest.raises(BadInput, match="is a public key; signing takes the private one"):
        load_private(public, {})
    with pytest.raises(BadInput, match="is a private key; signatures are checked with the public"):
        load_public(private)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    for load in (lambda path: load_private(path, {}), load_public):
        with pytest.raises(BadInput, match="No such file"):
            load(tmp_path / "absent.pem")


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_file_that_is_no_public_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sign.pub.pem"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is no public key that can be used"):
        load_public(path)


def test_a_public_key_of_a_kind_that_is_not_supported(tmp_path: Path) -> None:
    for kind, words in (("k1", "is no public key"), ("short rsa", "has 1024 bits")):
        with pytest.raises(BadInput, match=words):
            load_public(write_keys(tmp_path, kind)[1])


@pytest.mark.parametrize("other", ["rsa", "ecdsa"])
def test_a_signature_by_another_key(tmp_path: Path, other: str) -> None:
    private, _ = write_keys(tmp_path, "ed25519")
    envelope = sign(STATEMENT, load_private(private, {}))
    with pytest.raises(VerificationFailed, match=r"is signed with the key .* not with yours"):
        opened(envelope, load_public(write_keys(tmp_path, other)[1]))


def rewritten(envelope: str, **changes: object) -> str:
    """The envelope with other fields, written as vmbake writes it."""
    document = {**json.loads(envelope), **changes}
    return json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"


def test_another_payload_under_the_same_signature(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ed25519")
    envelope = sign(STATEMENT, load_private(private, {}))
    payload = base64.b64encode(STATEMENT.replace("[]", "[1]").encode()).decode()
    with pytest.raises(VerificationFailed, match="its signature is not good"):
        opened(rewritten(envelope, payload=payload), load_public(public))


@pytest.mark.parametrize("changes", [{"payloadType": "text/plain"}, {"signatures": []}])
def test_an_envelope_that_vmbake_does_not_write(tmp_path: Path, changes: dict[str, object]) -> None:
    private, public = write_keys(tmp_path, "ed25519")
    envelope = rewritten(sign(STATEMENT, load_private(private, {})), **changes)
    for key in (load_public(public), None):
        with pytest.raises(VerificationFailed, match="not as it was signed and written"):
            opened(envelope, key)


def test_an_envelope_in_other_words(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ed25519")
    envelope = sign(STATEMENT, load_private(private, {}))
    for other in (envelope + " ", json.dumps(json.loads(envelope), indent=1), envelope.strip()):
        with pytest.raises(VerificationFailed, match="not as it was signed and written"):
            opened(other, load_public(public))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "3",
        "[" * 100_000,
        STATEMENT,
        '{"payload":"!","payloadType":"x","signatures":[]}',
        '{"payload":"","payloadType":"x","signatures":[{"sig":"AAAA"}]}',
        '{"payload":"","payloadType":"x","signatures":[{"sig":"AA==","keyid":5}]}',
        '{"payload":"/w==","payloadType":"x","signatures":[]}',
    ],
)
def test_what_is_no_envelope(text: str) -> None:
    with pytest.raises(VerificationFailed):
        opened(text, None)


def test_keys_are_known_by_what_they_are(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "ed25519")
    copy = tmp_path / "copy.pem"
    copy.write_bytes(public.read_bytes())
    assert load_public(copy).keyid == load_private(private, {}).keyid
    assert signing.brief(load_public(copy).keyid) == load_public(public).keyid[:16]
