"""JUnit XML: the outcomes apart, the counts right, and XML whatever a guest prints."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tasks.artifacts.checks import Validation
from tasks.ci.junit import junit_xml, timestamp, write
from tests.standins.validations import HOSTILE, check, run, validation

GOLDEN = Path(__file__).parent / "golden" / "junit.xml"


def parsed(*validations: Validation, commit: str = "c0ffee") -> ET.Element:
    return ET.fromstring(junit_xml(validations, commit))


def test_it_is_as_it_always_was() -> None:
    document = parsed(
        validation(
            check(output="Welcome\n"),
            check(
                "module",
                "vermagic",
                command="modinfo -F vermagic vexfs",
                expected="6.12.117",
                outcome="failed",
                reason="It is 6.12.101.",
                output="6.12.101 SMP\n",
            ),
            check("module", "loads", outcome="error", reason="SSH did not answer."),
            check("hardening", "sockets", outcome="skipped", reason="for production only"),
        ),
        validation(
            image="foreign.img", variant="", version="", sha256="", error="It is no disk image.",
            console=("SeaBIOS", "No bootable device."), seconds=1.25,
        ),
    )  # fmt: skip
    ET.indent(document)
    assert ET.tostring(document, encoding="unicode") + "\n" == GOLDEN.read_text()


def test_every_outcome_is_counted_where_it_belongs() -> None:
    document = parsed(*run().validations)
    cases = list(document.iter("testcase"))
    counts = {
        name: len([case for case in cases if case.find(tag) is not None])
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    assert counts == {"failures": 4, "errors": 3, "skipped": 81}
    assert {name: int(document.attrib[name]) for name in counts} == counts
    assert int(document.attrib["tests"]) == len(cases) == 661
    for suite in document:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))


def test_one_suite_per_image_even_for_the_same_image_twice() -> None:
    twice = validation(check()), validation(check(), firmware="uefi")
    assert len(list(parsed(*twice))) == 2


def test_properties_say_what_was_validated_and_how() -> None:
    suite = parsed(validation(check()))[0]
    assert suite[0].tag == "properties"  # the schemas want them first
    assert {item.attrib["name"]: item.attrib["value"] for item in suite[0]} == {
        "image_sha256": "ab" * 32,
        "image_size_bytes": "359333888",
        "variant": "minimal",
        "version": "1.0.0",
        "accelerator": "tcg",
        "firmware": "bios",
        "commit": "c0ffee",
    }


def test_whatever_a_guest_prints_it_stays_xml() -> None:
    hostile = validation(
        check(HOSTILE, HOSTILE, command=HOSTILE, expected=HOSTILE, outcome="failed",
              reason=HOSTILE, output=HOSTILE),
        check(outcome="error", reason=HOSTILE, output=HOSTILE),
        check(outcome="skipped", reason=HOSTILE),
        image=HOSTILE, variant=HOSTILE, error=HOSTILE, console=(HOSTILE,), sha256=HOSTILE,
    )  # fmt: skip
    document = parsed(hostile, commit=HOSTILE)
    said = document.findtext(".//system-out") or ""
    assert "</pre></script><script>" in said
    assert "red ␀␈␋�� ]]>" in said


def test_outputs_are_not_cut() -> None:
    output = "line\n" * 100_000
    assert parsed(validation(check(output=output))).findtext(".//system-out") == output


def test_a_part_of_the_class_name_has_no_dots() -> None:
    case = parsed(validation(check("boot.early"), variant="v1.0"))[0].find("testcase")
    assert case is not None
    assert case.attrib["classname"] == "image.v1_0.boot_early"


@pytest.mark.parametrize(
    ("started", "stamp"),
    [
        ("2026-11-22T11:20:00.123456+00:00", "2026-11-22T11:20:00"),
        ("2026-11-22T12:20:00+01:00", "2026-11-22T11:20:00"),
        ("2026-11-22T11:20:00", "2026-11-22T11:20:00"),
        ("yesterday", ""),
    ],
)
def test_times_are_utc_without_a_zone(started: str, stamp: str) -> None:
    assert timestamp(started) == stamp


def test_the_file_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "junit.xml"
    write(run().validations, "c0ffee", target)
    assert target.read_bytes() == junit_xml(run().validations, "c0ffee")
    assert [path.name for path in tmp_path.iterdir()] == ["junit.xml"]
