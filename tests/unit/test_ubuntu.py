"""Ubuntu releases from a local server, signed by keys made here, and broken in every way."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tasks.artifacts.download import Patience
from tasks.artifacts.pins import Pins
from tasks.artifacts.transfer import Limits
from tasks.core.errors import BadInput, DownloadFailed, VerificationFailed, VmbakeError
from tasks.core.events import Silent
from tasks.core.process import Runner
from tasks.guest.ubuntu import (
    BASES,
    HERE,
    Image,
    Release,
    digest_in,
    fetch_image,
    require_release,
    ubuntu_table,
)
from tests.standins.release_server import (
    ReleaseServer,
    held,
    reset,
    serving,
    status,
    truncated,
)

BASE = "ubuntu-24.04"
FILE = "ubuntu-24.04-server-cloudimg-amd64.img"
FOLDER = "/noble/release-20260926"
DAY = dt.date(2026, 9, 26)
IMAGE = random.Random(24).randbytes(400_000)
SHA256 = hashlib.sha256(IMAGE).hexdigest()


@dataclass(frozen=True)
class Key:
    """A signing key in a GnuPG home of its own."""

    home: Path
    fingerprint: str
    ring: Path

    def gpg(self, *words: str | Path, day: dt.date = DAY) -> str:
        time = f"{day:%Y%m%d}T120000!"
        argv: list[str | Path] = ["gpg", "--homedir", self.home, "--batch", "--yes"]
        argv += ["--faked-system-time", time]
        done = subprocess.run(
            [*argv, *words], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def sign(self, path: Path, *options: str, day: dt.date = DAY) -> None:
        words = ("--armor", "--local-user", self.fingerprint, *options, "--output")
        self.gpg(*words, path.with_name(path.name + ".gpg"), "--detach-sign", path, day=day)


def fingerprints(listing: str) -> list[str]:
    """The fingerprints in a listing of gpg --with-colons."""
    return re.findall(r"^fpr:.*:([0-9A-F]{40}):$", listing, re.MULTILINE)  # codespell:ignore fpr


def make_key(home: Path, name: str, expire: str = "never") -> Key:
    home.mkdir(mode=0o700)
    ring = home / "ring.gpg"
    key = Key(home, "", ring)
    made = dt.date(2026, 1, 1)
    key.gpg(
        *("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", expire), day=made
    )
    listing = key.gpg("--list-keys", "--with-colons", day=made)
    fingerprint = fingerprints(listing)[0]
    key.gpg("--output", ring, "--export", fingerprint, day=made)
    return replace(key, fingerprint=fingerprint)


def revoke(key: Key) -> None:
    """Revoke the key in its ring, with the certificate that gpg made with it."""
    certificate = key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
    # gpg puts a colon before the armor, so that nobody imports it by mistake.
    usable = key.home / "usable.rev"
    usable.write_text(certificate.read_text().replace(":-----BEGIN", "-----BEGIN"))
    key.gpg("--import", usable)
    key.gpg("--output", key.ring, "--export", key.fingerprint)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Key]]:
    # A short path: the agent's socket lies in the home, and its name has 107 bytes at most.
    folder = tmp_path_factory.mktemp("k")
    made = {name: folder / name for name in ("ours", "other", "expired", "revoked")}
    try:
        yield {
            name: make_key(home, f"{name} <{name}@release.test>", "2026-10-01")
            if name == "expired"
            else make_key(home, f"{name} <{name}@release.test>")
            for name, home in made.items()
        }
    finally:
        for home in made.values():
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=60)


class Mirror:
    """A mirror with one good release, and what is needed to fetch from it."""

    def __init__(self, server: ReleaseServer, keys: dict[str, Key], scratch: Path) -> None:
        self.server = server
        self.keys = keys
        self.folder = server.root / FOLDER.lstrip("/")
        self.cache = scratch / "cache"
        self.runner = Runner(scratch / "log")
        self.pins = Pins(path=scratch / "pins")
        self.waits_s: list[float] = []
        self.patience = Patience(
            tries=3, sleep=self.waits_s.append, jitter=lambda: 0.0, limits=Limits(silence_s=0.3)
        )
        self.release = self.released(server.url)
        self.folder.mkdir(parents=True)
        (self.folder / FILE).write_bytes(IMAGE)
        self.publish(f"{'0' * 64} *ubuntu-24.04-server-cloudimg-arm64.img\n{SHA256} *{FILE}\n")

    @property
    def sums(self) -> Path:
        return self.folder / "SHA256SUMS"

    def released(self, mirror: str, day: str = "20260926") -> Release:
        ours = self.keys["ours"]
        release = require_release(BASE, day=day, mirror=mirror)
        return replace(
            release, sha256=None, keyring=ours.ring, signers=frozenset({ours.fingerprint})
        )

    def publish(self, text: str, *, by: str = "ours", day: dt.date = DAY) -> None:
        self.sums.write_text(text)
        self.keys[by].sign(self.sums, day=day)

    def trust(self, *names: str, signers: tuple[str, ...] | None = None) -> None:
        """Put these keys into the keyring, and let them (or `signers`) sign."""
        ring = self.folder / "ring.gpg"
        ring.write_bytes(b"".join(self.keys[name].ring.read_bytes() for name in names))
        known = frozenset(self.keys[name].fingerprint for name in signers or names)
        self.release = replace(self.release, keyring=ring, signers=known)

    def fetch(self, *, offline: bool = False) -> Image:
        return fetch_image(
            self.release,
            self.cache,
            runner=self.runner,
            reporter=Silent(),
            offline=offline,
            pins=self.pins,
            patience=self.patience,
        )

    def fails(self, kind: type[VmbakeError], *words: str, offline: bool = False) -> None:
        with pytest.raises(kind) as caught:
            self.fetch(offline=offline)
        for word in words:
            assert word in str(caught.value)
        assert not list(self.cache.rglob("*.img"))

    def status(self) -> str:
        """What gpgv says of the release, in its own words."""
        argv = ["gpgv", "--status-fd", "1", "--keyring", str(self.release.keyring)]
        files = [str(self.sums) + ".gpg", str(self.sums)]
        done = subprocess.run(
            [*argv, *files], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def count(self, name: str) -> int:
        return len(self.server.requests_for(f"{FOLDER}/{name}"))


@pytest.fixture
def mirror(tmp_path: Path, keys: dict[str, Key]) -> Iterator[Mirror]:
    with serving(tmp_path / "served") as server:
        yield Mirror(server, keys, tmp_path)


def test_a_good_release(mirror: Mirror) -> None:
    image = mirror.fetch()
    assert image.path == mirror.cache / BASE / "release-20260926" / FILE
    assert image.path.read_bytes() == IMAGE
    assert (image.sha256, image.size_bytes) == (SHA256, len(IMAGE))
    assert image.signature.fingerprint == mirror.keys["ours"].fingerprint
    assert image.signature.day == DAY
    assert mirror.pins.path.read_text() == f"{SHA256}  {BASE}/release-20260926/{FILE}\n"


def test_a_second_time_costs_no_request(mirror: Mirror) -> None:
    first = mirror.fetch()
    mirror.server.seen.clear()
    assert mirror.fetch() == first
    assert mirror.fetch(offline=True) == first
    assert mirror.server.seen == []


def test_offline_with_an_empty_cache(mirror: Mirror) -> None:
    mirror.fails(DownloadFailed, "offline", "SHA256SUMS", offline=True)
    assert mirror.server.seen == []


def test_offline_verifies_the_cache(mirror: Mirror) -> None:
    image = mirror.fetch()
    image.path.write_bytes(b"damaged")
    with pytest.raises(DownloadFailed, match="not as it should be"):
        mirror.fetch(offline=True)
    (image.path.parent / "SHA256SUMS").write_text(f"{'1' * 64} *{FILE}\n")
    with pytest.raises(VerificationFailed, match="not what was signed"):
        mirror.fetch(offline=True)


def test_a_damaged_cache_is_repaired(mirror: Mirror) -> None:
    image = mirror.fetch()
    image.path.write_bytes(b"damaged")
    (image.path.parent / "SHA256SUMS").write_text(f"{'1' * 64} *{FILE}\n")
    assert mirror.fetch() == image
    assert image.path.read_bytes() == IMAGE


def test_offline_from_a_folder(mirror: Mirror) -> None:
    mirror.release = mirror.released(mirror.server.root.as_uri())
    assert mirror.fetch(offline=True).path.read_bytes() == IMAGE
    assert mirror.server.seen == []


def test_a_release_that_has_vanished(mirror: Mirror) -> None:
    mirror.release = mirror.released(mirror.server.url, "20261001")
    mirror.fails(DownloadFailed, "404", "release-20261001", "--image-release", "--image-mirror")


def test_the_next_mirror_serves_what_the_first_has_not(mirror: Mirror) -> None:
    folders = (mirror.server.url + "/elsewhere", *mirror.release.folders)
    mirror.release = replace(mirror.release, folders=folders)
    assert mirror.fetch().sha256 == SHA256


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.gpg", FILE])
def test_503_then_well(mirror: Mirror, name: str) -> None:
    mirror.server.misbehave(f"{FOLDER}/{name}", status(503))
    assert mirror.fetch().sha256 == SHA256
    assert len(mirror.waits_s) == 1


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.gpg", FILE])
def test_503_forever(mirror: Mirror, name: str) -> None:
    mirror.server.misbehave(f"{FOLDER}/{name}", status(503), forever=True)
    mirror.fails(DownloadFailed, "503", name)


def test_breaks_on_the_way(mirror: Mirror) -> None:
    breaks = (truncated(1000), reset(200_000))
    mirror.server.misbehave(f"{FOLDER}/{FILE}", *breaks)
    assert mirror.fetch().path.read_bytes() == IMAGE
    assert mirror.count(FILE) == 3


def test_truncated_and_hanging_forever(mirror: Mirror) -> None:
    mirror.server.misbehave(f"{FOLDER}/{FILE}", truncated(1000), forever=True)
    mirror.fails(DownloadFailed, "ended after")
    mirror.server.misbehave(f"{FOLDER}/{FILE}", held(0), forever=True)
    mirror.fails(DownloadFailed, "silent")


def test_wrong_digest(mirror: Mirror) -> None:
    other = b"x" * len(IMAGE)
    (mirror.folder / FILE).write_bytes(other)
    mirror.fails(VerificationFailed, SHA256, hashlib.sha256(other).hexdigest())


def test_list_changed_after_signing(mirror: Mirror) -> None:
    mirror.sums.write_text(mirror.sums.read_text().replace(SHA256, "1" * 64))
    mirror.fails(VerificationFailed, "not what was signed")
    assert mirror.count(FILE) == 0
    assert not list(mirror.cache.rglob("SHA256SUMS*"))


def test_missing_signature(mirror: Mirror) -> None:
    mirror.sums.with_name("SHA256SUMS.gpg").unlink()
    mirror.fails(DownloadFailed, "SHA256SUMS.gpg", "404", "Without the signature")
    assert mirror.count(FILE) == 0


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>\n"])
def test_signature_that_is_none(mirror: Mirror, content: bytes) -> None:
    mirror.sums.with_name("SHA256SUMS.gpg").write_bytes(content)
    mirror.fails(VerificationFailed, "holds no signature")


def test_signature_by_an_unknown_key(mirror: Mirror) -> None:
    mirror.publish(f"{SHA256} *{FILE}\n", by="other")
    mirror.fails(VerificationFailed, "not trusted here", mirror.keys["other"].fingerprint[-16:])


def test_signature_by_a_key_of_the_ring_that_may_not_sign(mirror: Mirror) -> None:
    mirror.trust("ours", "other", signers=("ours",))
    mirror.publish(f"{SHA256} *{FILE}\n", by="other")
    mirror.fails(VerificationFailed, "may not sign", mirror.keys["other"].fingerprint)


def test_signature_by_a_key_that_expired_since(mirror: Mirror) -> None:
    """As gpgv does: it was valid when it signed."""
    mirror.trust("expired")
    mirror.publish(f"{SHA256} *{FILE}\n", by="expired")
    assert mirror.fetch().sha256 == SHA256
    assert "EXPKEYSIG" in mirror.status()


def test_signature_by_a_revoked_key(mirror: Mirror) -> None:
    mirror.publish(f"{SHA256} *{FILE}\n", by="revoked")
    revoke(mirror.keys["revoked"])
    mirror.trust("revoked")
    mirror.fails(VerificationFailed, "has been revoked")


def test_signature_that_expired(mirror: Mirror) -> None:
    mirror.keys["ours"].sign(mirror.sums, "--default-sig-expire", "1d")
    mirror.fails(VerificationFailed, "has expired")


def test_an_older_release_under_a_newer_date(mirror: Mirror) -> None:
    mirror.publish(f"{SHA256} *{FILE}\n", day=dt.date(2026, 9, 11))
    mirror.fails(VerificationFailed, "2026-09-11", "older")


def test_signed_a_few_days_after_the_release(mirror: Mirror) -> None:
    mirror.publish(f"{SHA256} *{FILE}\n", day=dt.date(2026, 10, 2))
    assert mirror.fetch().signature.day == dt.date(2026, 10, 2)


def test_file_not_listed(mirror: Mirror) -> None:
    mirror.publish(f"{SHA256} *{FILE}.manifest\n")
    mirror.fails(VerificationFailed, FILE, "doesn't list it")


def test_signed_list_against_the_pin_of_the_project(mirror: Mirror) -> None:
    mirror.release = replace(mirror.release, sha256="2" * 64)
    mirror.fails(VerificationFailed, SHA256, "2" * 64)
    assert mirror.count(FILE) == 0


def test_signed_list_against_the_pin_of_first_use(mirror: Mirror) -> None:
    mirror.pins.record(f"{BASE}/release-20260926/{FILE}", "3" * 64)
    mirror.fails(VerificationFailed, SHA256, "3" * 64, str(mirror.pins.path))
    assert mirror.count(FILE) == 0


def test_endless_list(mirror: Mirror) -> None:
    mirror.sums.write_bytes(b"0" * (2 << 20))
    mirror.fails(VerificationFailed, "bigger than")


@pytest.mark.parametrize(
    "line",
    [
        f"{SHA256} *../../etc/passwd",
        f"{SHA256} */etc/passwd",
        f"{SHA256} *sub/{FILE}",
        f"{SHA256}  .hidden",
        f"{SHA256} {FILE}",
        f"{SHA256.upper()} *{FILE}",
        f"{SHA256[1:]} *{FILE}",
        f"{SHA256} *{FILE} *other",
        f"SHA256 ({FILE}) = {SHA256}",
        f"{SHA256} *{FILE}\r",
    ],
)
def test_lines_that_are_no_digest_of_a_plain_file(line: str) -> None:
    with pytest.raises(VerificationFailed, match="Line 2"):
        digest_in(f"{'0' * 64} *good.img\n{line}\n", FILE)


def test_list_with_two_digests_for_a_file() -> None:
    with pytest.raises(VerificationFailed, match="several"):
        digest_in(f"{SHA256} *{FILE}\n{'4' * 64} *{FILE}\n", FILE)
    assert digest_in(f"{SHA256} *{FILE}\n{SHA256}  {FILE}", FILE) == SHA256


def test_release_options() -> None:
    ours = require_release(BASE)
    assert ours.name == f"release-{ubuntu_table(BASE)['release']}"
    other = require_release(BASE, day="release-20250516", mirror="https://mirror.test/ubuntu/")
    assert other.folders == ("https://mirror.test/ubuntu/noble/release-20250516",)
    assert other.sha256 is None
    flat = require_release(
        "ubuntu-22.04", day="20250516", mirror="https://m.test/{release}-{series}"
    )
    assert flat.folders == ("https://m.test/20250516-jammy",)


@pytest.mark.parametrize("day", ["2026", "20261301", "2026-09-26", "latest", "../../x"])
def test_days_that_are_none(day: str) -> None:
    with pytest.raises(BadInput, match="YYYYMMDD"):
        require_release(BASE, day=day)


def test_other_bad_options() -> None:
    with pytest.raises(BadInput, match=r"Did you mean ubuntu-24\.04"):
        require_release("ubuntu-2404")
    with pytest.raises(BadInput, match="no http"):
        require_release(BASE, mirror="/srv/mirror")


@pytest.mark.parametrize("base", ["ubuntu-24.04", "ubuntu-22.04"])
def test_shipped_keyring_holds_just_the_signers(base: str) -> None:
    release = require_release(base)
    argv = ["gpg", "--show-keys", "--with-colons", str(release.keyring)]
    listing = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    assert set(fingerprints(listing)) == release.signers
    assert release.signers == {"D2EB44626FDDC30B513D5BB71A5D6C4C7DB87C81"}


def test_shipped_data_is_dated_and_https() -> None:
    assert BASES.parent == HERE
    for base in ("ubuntu-24.04", "ubuntu-22.04"):
        for folder in require_release(base).folders:
            assert folder.startswith("https://")
            assert folder.endswith(require_release(base).name)
