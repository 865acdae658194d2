"""JUnit XML from validations: one suite per image, failure, error and skip kept apart.

The form is the one that Jenkins, GitLab and the usual GitHub actions read; it has no standard.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.checks import Check, Validation
from tasks.artifacts.publish import being_published
from tasks.ci.gather import moment
from tasks.ci.problems import WHOLE, trouble
from tasks.ci.text import one_line, readable

if TYPE_CHECKING:
    from junitparser import TestCase, TestSuite

FOREIGN = "foreign"


def junit_xml(validations: Sequence[Validation], commit: str) -> bytes:
    """The whole document in UTF-8.

    Args:
        commit: of the checkout that built and validated the images; "" if not known.
    """
    from junitparser import JUnitXml

    document = JUnitXml("vmbake")
    suites = [suite(validation, commit) for validation in validations]
    for made in suites:
        document.add_testsuite(made)
    document.tests = sum(made.tests for made in suites)
    document.failures = sum(made.failures for made in suites)
    document.errors = sum(made.errors for made in suites)
    document.skipped = sum(made.skipped for made in suites)
    document.time = round(sum(item.seconds for item in validations), 3)
    stream = io.BytesIO()
    document.write(stream)
    return stream.getvalue()


def write(validations: Sequence[Validation], commit: str, path: Path) -> None:
    """Write the document to `path`, complete or not at all.

    Raises:
        OSError: it can't be written.
    """
    with being_published(path) as aside:
        aside.write_bytes(junit_xml(validations, commit))


def suite(validation: Validation, commit: str) -> TestSuite:
    """The suite of one image; an image that could not be validated has one case more."""
    from junitparser import TestSuite

    made = TestSuite(readable(validation.image))
    for name, value in properties(validation, commit).items():
        made.add_property(name, readable(value))
    cases = [case(validation, check) for check in validation.checks]
    if why := trouble(validation):
        cases.append(whole_case(validation, why))
    made.add_testcases(cases)
    made.time = round(validation.seconds, 3)  # the boot included, unlike the sum of the cases
    made.timestamp = timestamp(validation.started)
    return made


def properties(validation: Validation, commit: str) -> dict[str, str]:
    """What identifies the image and how it was run; what is not known is left out."""
    known = {
        "image_sha256": validation.sha256,
        "image_size_bytes": str(validation.size_bytes),
        "variant": validation.variant,
        "version": validation.version,
        "accelerator": validation.accel,
        "firmware": validation.firmware,
        "commit": commit,
    }
    return {name: value for name, value in known.items() if value}


def case(validation: Validation, check: Check) -> TestCase:
    """One check as a test case."""
    from junitparser import Error, Failure, Skipped, TestCase

    made = TestCase(readable(check.name), class_name(validation, check.group), check.seconds)
    match check.outcome:
        case "failed":
            result = Failure(one_line(check.reason or check.expected), "failed")
            result.text = story(check)
            made.result = result
        case "error":
            error = Error(one_line(check.reason), "error")
            error.text = story(check)
            made.result = error
        case "skipped":
            made.result = Skipped(one_line(check.reason))
    if check.output:
        made.system_out = readable(check.output)
    return made


def whole_case(validation: Validation, why: str) -> TestCase:
    """The case that says why an image could not be validated, with the end of its console."""
    from junitparser import Error, TestCase

    made = TestCase(WHOLE, class_name(validation, WHOLE), 0.0)
    error = Error(one_line(why), "error")
    error.text = readable(why)
    made.result = error
    if validation.console:
        made.system_out = readable("\n".join(validation.console))
    return made


def class_name(validation: Validation, group: str) -> str:
    """`image.VARIANT.GROUP`; viewers make a tree of it, so a part has no dots of its own."""
    parts = (validation.variant or FOREIGN, group)
    return ".".join(("image", *(one_line(part).replace(".", "_") for part in parts)))


def story(check: Check) -> str:
    """What to know of a check that did not pass, for viewers that show the text alone."""
    lines = [f"$ {check.command}", f"expected: {check.expected}", check.reason]
    return readable("\n".join(filter(None, lines)))


def timestamp(started: str) -> str:
    """UTC without zone and fractions, as the common schemas ask for; "" for what is no time."""
    try:
        return moment(started).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return ""
