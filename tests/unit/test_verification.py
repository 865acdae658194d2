"""A sealed directory: whatever is changed in it is found, and named."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard

from tasks.artifacts import checks
from tasks.attest import collection, images, signing
from tasks.attest.collection import BUILD_MANIFEST, CHECKSUMS, SIGNATURE
from tasks.attest.verification import verify
from tasks.ci import verifying
from tasks.core.errors import BadInput, VerificationFailed
from tests.unit import attested
from tests.unit.attested import BUILD, sha256

MINIMAL, PRODUCTION = "vexfs-minimal-1.0.0", "vexfs-production-1.0.0"
RECORD = f"validation/{MINIMAL}"


@dataclass(frozen=True, kw_only=True)
class Results:
    """The same result, unsigned and signed, and the keys."""

    plain: Path
    signed: Path
    private: signing.PrivateKey
    public: signing.PublicKey
    other: signing.PublicKey


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("attested")
    inputs = attested.write_inputs(folder / "inputs")
    private_file, public_file = attested.write_keys(folder, "ed25519")
    private = signing.load_private(private_file, {})
    attested.write_result(folder / "plain", inputs, None)
    attested.write_result(folder / "signed", inputs, private)
    return Results(
        plain=folder / "plain",
        signed=folder / "signed",
        private=private,
        public=signing.load_public(public_file),
        other=signing.load_public(attested.write_keys(folder, "ecdsa")[1]),
    )


@pytest.fixture
def plain(made: Results, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.plain, tmp_path / "plain"))


@pytest.fixture
def signed(made: Results, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.signed, tmp_path / "signed"))


def named(directory: Path, key: signing.PublicKey | None = None) -> set[str]:
    """The files that findings name."""
    return {finding.file for finding in verify(directory, key).findings}


def told(directory: Path, key: signing.PublicKey | None = None) -> str:
    return "\n".join(str(finding) for finding in verify(directory, key).findings)


def files_of(directory: Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    )


def reseal(directory: Path) -> None:
    """What somebody without the key can do: recompute build-manifest.json and the checksums."""
    signature = directory / SIGNATURE
    kept = signature.read_bytes() if signature.exists() else None
    collection.seal(directory, BUILD)
    if kept is not None:
        signature.write_bytes(kept)
        write_checksums(directory)


def write_checksums(directory: Path) -> None:
    names = [name for name in files_of(directory) if name != CHECKSUMS]
    sums = {name: sha256((directory / name).read_bytes()) for name in names}
    (directory / CHECKSUMS).write_text(collection.checksums(sums))


def test_what_was_sealed_is_as_it_was_sealed(made: Results) -> None:
    assert verify(made.plain, None).findings == ()
    assert verify(made.signed, None).findings == ()
    verdict = verify(made.signed, made.public)
    assert verdict.findings == ()
    assert verdict.files == len(files_of(made.signed))
    assert set(verdict.signed) == {n for n in files_of(made.signed) if n.endswith(".jsonl")}
    assert len(verdict.signed) == 4


def test_checksums_are_what_sha256sum_reads(made: Results) -> None:
    done = subprocess.run(
        ["sha256sum", "--strict", "--quiet", "-c", CHECKSUMS], cwd=made.signed, check=False
    )
    assert done.returncode == 0
    lines = (made.signed / CHECKSUMS).read_text().splitlines()
    assert [line[66:] for line in lines] == [n for n in files_of(made.signed) if n != CHECKSUMS]


@pytest.mark.parametrize("kind", ["plain", "signed", "signed, with the key"])
def test_a_changed_byte_is_found_in_every_file(made: Results, tmp_path: Path, kind: str) -> None:
    source = made.plain if kind == "plain" else made.signed
    directory = Path(shutil.copytree(source, tmp_path / "copy"))
    key = made.public if "key" in kind else None
    for name in files_of(directory):
        path = directory / name
        content = path.read_bytes()
        for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
            changed = bytearray(content)
            changed[place] ^= 0x04
            path.write_bytes(changed)
            assert name in named(directory, key), f"{name}, byte {place}: {told(directory, key)}"
        path.write_bytes(content)
    assert not named(directory, key)


def test_a_changed_byte_is_told_of_one_file_only(signed: Path, made: Results) -> None:
    for name in (f"{MINIMAL}.qcow2", f"{RECORD}.json", "report.html", f"{MINIMAL}.cdx.json"):
        path = signed / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert named(signed, made.public) == {name}
        assert named(signed) == {name}
        path.write_bytes(content)


def test_bytes_all_over_the_files_that_speak_of_others_count(signed: Path, made: Results) -> None:
    for name in (CHECKSUMS, SIGNATURE):
        path = signed / name
        content = path.read_bytes()
        for place in range(0, len(content), 61):
            changed = bytearray(content)
            changed[place] ^= 0x01
            path.write_bytes(changed)
            assert name in named(signed, made.public), f"{name}, byte {place}"
        path.write_bytes(content)


def test_a_removed_file_is_named(signed: Path, made: Results) -> None:
    for name in files_of(signed):
        path = signed / name
        content = path.read_bytes()
        path.unlink()
        assert name in named(signed), name
        expected = {BUILD_MANIFEST, SIGNATURE} if name == SIGNATURE else {name}
        assert expected <= named(signed, made.public), name
        path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["extra.txt", ".hidden", "logs/more.log", "new/deep.txt", "Ünïcode name"]
)
def test_an_added_file_is_named(signed: Path, made: Results, name: str) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("")
    assert named(signed) == {name}
    assert named(signed, made.public) == {name}
    assert "added" in told(signed)


def test_what_is_no_file_is_named(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    image = signed / f"{MINIMAL}.qcow2"
    image.rename(tmp_path / "aside" / "image")
    image.symlink_to(tmp_path / "aside" / "image")
    (signed / "folder").symlink_to(tmp_path / "aside")
    (signed / "bad\nname").write_text("")
    os.mkfifo(signed / "pipe")
    assert named(signed) >= {image.name, "folder", "bad?name", "pipe"}


def test_swapped_files_are_both_named(plain: Path) -> None:
    one, two = plain / f"{MINIMAL}.qcow2", plain / f"{PRODUCTION}.qcow2"
    one.rename(plain / "aside")
    two.rename(one)
    (plain / "aside").rename(two)
    assert named(plain) == {one.name, two.name}
    reseal(plain)
    # Now only what the files say of each other gives it away.
    assert {f"{MINIMAL}.manifest.json", f"{PRODUCTION}.manifest.json"} <= named(plain)


@pytest.mark.parametrize("change", ["image", "log", "statement"])
def test_checksums_made_anew_without_the_key_do_not_help(
    signed: Path, made: Results, change: str
) -> None:
    name = {
        "image": f"{MINIMAL}.qcow2",
        "log": "logs/vexfs.seal.log",
        "statement": f"{MINIMAL}.provenance.intoto.jsonl",
    }[change]
    if change == "statement":
        shutil.copy(signed / f"{PRODUCTION}.provenance.intoto.jsonl", signed / name)
    else:
        (signed / name).write_text("other")
    reseal(signed)
    assert name in named(signed, made.public)


def test_an_image_made_anew_with_all_that_speaks_of_it_needs_the_key(
    signed: Path, made: Results, tmp_path: Path
) -> None:
    inputs = attested.write_inputs(tmp_path / "inputs")
    manifest = signed / f"{MINIMAL}.manifest.json"
    document = json.loads(manifest.read_text())
    for ending, content in (("qcow2", b"evil"), ("qcow2.zst", zstandard.compress(b"evil"))):
        name = f"{MINIMAL}.{ending}"
        (signed / name).write_bytes(content)
        document["artifacts"][name]["sha256"] = sha256(content)
        (signed / f"{name}.sha256").write_text(f"{sha256(content)}  {name}\n")
    manifest.write_text(json.dumps(document))
    images.attest_image(manifest, BUILD, **inputs)
    record = signed / f"{RECORD}.json"
    checks.write(attested.validation(signed, "minimal", "passed"), record)
    images.attest_validation(record)
    for unsigned in (False, True):
        if unsigned:
            (signed / SIGNATURE).unlink()
        reseal(signed)
        findings = named(signed, made.public)
        assert {f"{MINIMAL}.provenance.json", f"{RECORD}.test-result.json"} <= findings
        assert BUILD_MANIFEST in findings
    # Nothing but the key could tell.
    shutil.rmtree(signed / "validation")
    variants = tuple(replace(variant, outcome="built") for variant in BUILD.variants[:2])
    for path in signed.glob("*production*"):
        path.unlink()
    collection.seal(signed, replace(BUILD, variants=variants[:1]))
    assert named(signed) == set()
    assert BUILD_MANIFEST in named(signed, made.public)


EVIL = b"another image"


def flipped() -> bytes:
    """An archive whose own checksum says that it was damaged."""
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(EVIL)
    return packed[:-2] + bytes([packed[-2] ^ 0xFF]) + packed[-1:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zstandard.compress(EVIL), f"unpacked its SHA256 is {sha256(EVIL)}, not "),
        (gzip.compress(EVIL), f"unpacked its SHA256 is {sha256(EVIL)}, not "),
        (zstandard.compress(b"image of mini"), "unpacked its SHA256 is "),
        (zstandard.compress(b"image of minimal") + zstandard.compress(b"!"), "holds more than 16 "),
        (zstandard.compress(b"image of minimal")[:-2], "it ends before its end"),
        (
            flipped(),
            "can't be unpacked",
        ),
        (b"image of minimal", "it is nothing that is compressed"),
        (b"", "it is nothing that is compressed"),
    ],
)
def test_an_archive_of_another_image_is_named_whatever_digests_say(
    plain: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    packed = plain / f"{MINIMAL}.qcow2.zst"
    packed.write_bytes(content)
    (plain / f"{packed.name}.sha256").write_text(f"{sha256(content)}  {packed.name}\n")
    manifest = plain / f"{MINIMAL}.manifest.json"
    document = json.loads(manifest.read_text())
    document["artifacts"][packed.name] = {"sha256": sha256(content), "size_bytes": len(content)}
    manifest.write_text(json.dumps(document))
    images.attest_image(manifest, BUILD, **attested.write_inputs(tmp_path / "inputs"))
    reseal(plain)
    # All that speaks of it was made anew, so that nothing but its content gives it away.
    assert named(plain) == {packed.name}
    assert words in told(plain)
    with pytest.raises(VerificationFailed, match=re.escape(packed.name)):
        list(verifying.check(plain, None))


def test_a_provenance_of_another_image_is_named(plain: Path) -> None:
    name = f"{MINIMAL}.provenance.json"
    shutil.copy(plain / f"{PRODUCTION}.provenance.json", plain / name)
    reseal(plain)
    assert named(plain) == {name}
    assert "it is not about these files: subject[0].name is" in told(plain)


@pytest.mark.parametrize("ending", ["cdx.json", "spdx.json"])
def test_a_bill_of_materials_of_another_image_is_named(plain: Path, ending: str) -> None:
    name = f"{MINIMAL}.{ending}"
    shutil.copy(plain / f"{PRODUCTION}.{ending}", plain / name)
    reseal(plain)
    # The provenance has the digest of the right one.
    assert named(plain) == {name, f"{MINIMAL}.provenance.json"}
    other = sha256((plain / f"{PRODUCTION}.qcow2").read_bytes())
    assert f"{name}: it is of another image, with SHA256 {other}" in told(plain)


@pytest.mark.parametrize("ending", ["cdx.json", "spdx.json"])
def test_a_bill_of_materials_with_another_module_is_named(plain: Path, ending: str) -> None:
    path = plain / f"{MINIMAL}.{ending}"
    path.write_text(path.read_text().replace(sha256(b"module"), sha256(b"other")))
    reseal(plain)
    words = f"{path.name}: it does not have the module vexfs.ko with SHA256 {sha256(b'module')}"
    assert words in told(plain)


def test_a_record_of_another_image_is_named(plain: Path) -> None:
    record = plain / f"{RECORD}.json"
    other = attested.validation(plain, "production", "passed")
    checks.write(replace(other, image=f"{MINIMAL}.qcow2"), record)
    images.attest_validation(record)
    reseal(plain)
    assert named(plain) == {f"{RECORD}.json"}
    assert "another vexfs-minimal-1.0.0.qcow2" in told(plain)


def test_a_statement_that_says_passed_of_a_failed_record_is_named(plain: Path) -> None:
    record = plain / f"{RECORD}.json"
    statement = plain / f"{RECORD}.test-result.json"
    said = json.loads(statement.read_text())
    checks.write(attested.validation(plain, "minimal", "failed", "passed"), record)
    said["subject"][0]["digest"]["sha256"] = sha256(record.read_bytes())
    statement.write_text(json.dumps(said))
    reseal(plain)
    assert named(plain) == {statement.relative_to(plain).as_posix(), BUILD_MANIFEST}
    assert "predicate.result" in told(plain)
    assert "it says that vexfs-minimal-1.0.0 passed; a validation says that it failed" in told(
        plain
    )


def test_a_statement_about_nothing_is_named(plain: Path) -> None:
    for path in plain.glob(f"{PRODUCTION}.*"):
        if "provenance" not in path.name:
            path.unlink()
    reseal(plain)
    assert f"{PRODUCTION}.provenance.json" in named(plain)
    assert BUILD_MANIFEST in named(plain)  # which lists the image


@pytest.mark.parametrize(
    ("ending", "blamed"),
    [
        ("provenance.json", "manifest.json"),
        ("cdx.json", "manifest.json"),
        ("spdx.json", "manifest.json"),
        ("qcow2", "manifest.json"),
    ],
)
def test_what_is_never_made_is_missed(plain: Path, ending: str, blamed: str) -> None:
    (plain / f"{MINIMAL}.{ending}").unlink()
    reseal(plain)
    assert f"{MINIMAL}.{blamed}" in named(plain)
    assert f"{MINIMAL}.{ending}" in told(plain)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("base", "sha256"), sha256(b"other base")),
        (("source", "sha256"), sha256(b"other source")),
        (("module", "sha256"), sha256(b"other module")),
        (("variant",), "production"),
        (("packages", "libc6:amd64"), "2.41-13"),
    ],
)
def test_the_chain_holds_from_the_base_on(plain: Path, where: tuple[str, ...], value: str) -> None:
    manifest = plain / f"{MINIMAL}.manifest.json"
    document = json.loads(manifest.read_text())
    place = document
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    manifest.write_text(json.dumps(document))
    statement = plain / f"{MINIMAL}.provenance.json"
    said = json.loads(statement.read_text())
    for subject in said["subject"]:
        if subject["name"] == manifest.name:
            subject["digest"]["sha256"] = sha256(manifest.read_bytes())
    statement.write_text(json.dumps(said))
    reseal(plain)
    assert named(plain) & {statement.name, f"{MINIMAL}.cdx.json"}
    assert value in told(plain)


def test_a_wrong_key_is_told_from_a_wrong_signature(made: Results) -> None:
    text = told(made.signed, made.other)
    assert "it is signed with the key" in text
    assert "(ecdsa)" in text
    assert {n for n in files_of(made.signed) if n.endswith(".jsonl")} <= named(
        made.signed, made.other
    )


def test_unsigned_files_do_not_pass_where_a_key_is_given(made: Results) -> None:
    findings = named(made.plain, made.public)
    assert BUILD_MANIFEST in findings
    assert {n for n in files_of(made.plain) if "provenance" in n or "test-result" in n} < findings


def test_a_signature_with_the_key_s_name_but_of_another_key(signed: Path, made: Results) -> None:
    path = signed / SIGNATURE
    envelope = json.loads(path.read_text())
    envelope["signatures"][0]["sig"] = base64.b64encode(b"x" * 64).decode()
    path.write_text(json.dumps(envelope, sort_keys=True, separators=(",", ":")) + "\n")
    assert "its signature is not good" in told(signed, made.public)


NONSENSE = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"format": 1, "build": {}, "files": {}}',
    b'{"format": 2}',
    b'{"signatures": [], "payload": "", "payloadType": ""}',
    b'{"signatures": "x", "payload": 1, "payloadType": []}',
    b'{"artifacts": {}, "subject": 1, "checks": 5, "boot": [], "console": 1}',
    b'{"artifacts": {"x": {"sha256": 1}}, "packages": []}',
]


@pytest.mark.parametrize("content", NONSENSE)
def test_nonsense_in_any_file_is_a_finding_and_no_traceback(
    plain: Path, signed: Path, made: Results, content: bytes
) -> None:
    for name in files_of(signed):
        path = signed / name
        before = path.read_bytes()
        path.write_bytes(content)
        assert name in named(signed, made.public)
        path.write_bytes(before)
    for name in files_of(plain):
        path = plain / name
        before = path.read_bytes()
        if name.endswith(".json") and name != BUILD_MANIFEST:
            path.write_bytes(content)
            reseal(plain)
            assert named(plain)
            path.write_bytes(before)


def test_names_in_the_manifests_lead_nowhere_else(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    manifest = plain / f"{MINIMAL}.manifest.json"
    document = json.loads(manifest.read_text())
    document["artifacts"]["../secret"] = {"sha256": sha256(b"x"), "size_bytes": 1}
    manifest.write_text(json.dumps(document))
    reseal(plain)
    assert "it speaks of ../secret, which is not there" in told(plain)


def test_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(BadInput, match="is no directory"):
            verify(path, None)


def test_a_directory_that_nobody_sealed(tmp_path: Path) -> None:
    assert named(tmp_path) == {BUILD_MANIFEST, CHECKSUMS}


def test_sealing_twice_gives_the_same(signed: Path, made: Results) -> None:
    before = {name: (signed / name).read_bytes() for name in files_of(signed)}
    collection.seal(signed, BUILD, key=made.private)
    assert {name: (signed / name).read_bytes() for name in files_of(signed)} == before


def test_a_seal_that_was_killed_is_no_seal(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(collection, "publish_text", full)
    with pytest.raises(OSError, match="No space"):
        collection.seal(signed, BUILD)
    assert not {BUILD_MANIFEST, SIGNATURE, CHECKSUMS} & set(files_of(signed))
    assert BUILD_MANIFEST in named(signed)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("report.html"), os.mkfifo])
def test_what_nobody_can_vouch_for_is_not_sealed(plain: Path, make: Callable[[Path], None]) -> None:
    make(plain / "odd")
    with pytest.raises(BadInput, match="odd"):
        collection.seal(plain, BUILD)


def test_what_the_task_says(made: Results, signed: Path, tmp_path: Path) -> None:
    public = attested.write_keys(tmp_path, "ed25519")[1]
    first, second = verifying.check(signed, public)
    assert (
        first
        == f"{signed}: {len(files_of(signed))} files are as they were sealed, from base to image."
    )
    assert second.startswith("4 statements are signed with the key")
    assert "nothing vouches for who made them" in "\n".join(verifying.check(signed, None))
    (signed / "report.html").write_text("other")
    (signed / "logs" / "vexfs.seal.log").unlink()
    with pytest.raises(VerificationFailed) as caught:
        list(verifying.check(signed, None))
    assert caught.value.exit_code == 6
    assert "  report.html: its SHA256 is " in str(caught.value)
    assert "  logs/vexfs.seal.log: it is missing" in str(caught.value)


def test_a_file_that_cannot_be_read(made: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(collection, "sha256_of", refuse)
    with pytest.raises(BadInput, match=r"plain/.* can't be read: Permission denied"):
        list(verifying.check(made.plain, None))


def test_what_others_wrote_moves_no_cursor(plain: Path) -> None:
    manifest = plain / f"{MINIMAL}.manifest.json"
    document = json.loads(manifest.read_text())
    document["artifacts"]["\x1b[2J\nok"] = {"sha256": "", "size_bytes": 1}
    manifest.write_text(json.dumps(document))
    reseal(plain)
    with pytest.raises(VerificationFailed) as caught:
        list(verifying.check(plain, None))
    assert "it speaks of ?[2J?ok, which is not there" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "variant",
    [
        {"name": "x", "outcome": "passed", "files": [["x"]]},
        {"name": 5, "outcome": 5, "files": "xy"},
        {"name": "x", "outcome": "passed", "files": ["absent.qcow2"]},
    ],
)
def test_a_build_manifest_with_impossible_variants(plain: Path, variant: dict[str, object]) -> None:
    path = plain / BUILD_MANIFEST
    document = json.loads(path.read_text())
    document["build"]["variants"] = [variant]
    path.write_text(json.dumps(document))
    write_checksums(plain)
    assert named(plain) == {BUILD_MANIFEST}


def test_a_signed_statement_of_another_kind_does_not_speak_for_the_directory(
    signed: Path, made: Results
) -> None:
    shutil.copy(signed / f"{MINIMAL}.provenance.intoto.jsonl", signed / SIGNATURE)
    write_checksums(signed)
    assert "it is a statement of another kind, https://slsa.dev/provenance/v1" in told(
        signed, made.public
    )
    assert SIGNATURE in named(signed)


def test_a_size_that_is_not_the_file_s_is_told(plain: Path) -> None:
    path = plain / BUILD_MANIFEST
    document = json.loads(path.read_text())
    document["files"]["report.html"]["size_bytes"] += 1
    path.write_text(json.dumps(document))
    write_checksums(plain)
    assert told(plain) == f"{BUILD_MANIFEST}: it says that report.html has 17 bytes; it has 16"


def test_the_checksum_file_of_an_image_is_that_image_s(plain: Path) -> None:
    sums = plain / f"{MINIMAL}.qcow2.sha256"
    sums.write_text(f"{sha256(b'other')}  {MINIMAL}.qcow2\n")
    reseal(plain)
    assert f"{sums.name}: it is not the checksum of {MINIMAL}.qcow2" in told(plain)


@pytest.mark.parametrize("change", ["a comment", "another order", "no end of line", "twice"])
def test_checksums_are_as_they_were_written_or_named(plain: Path, change: str) -> None:
    path = plain / CHECKSUMS
    lines = path.read_text().splitlines(keepends=True)
    changed = {
        "a comment": ["# none\n", *lines],
        "another order": lines[::-1],
        "no end of line": ["".join(lines).rstrip()],
        "twice": [*lines, lines[-1]],
    }
    path.write_text("".join(changed[change]))
    assert told(plain) == (
        f"{CHECKSUMS}: it is not as it was written; other than sorted lines are in it"
    )
