"""What is wrong comes worst first, and once for all images that share it."""

from __future__ import annotations

from tasks.ci.problems import NO_CHECKS, NOT_VALIDATED, WHOLE, labels, ordered_groups, problems
from tests.standins.validations import check, run, validation


def test_nothing_is_wrong_with_what_passed_or_was_skipped() -> None:
    good = validation(check(), check(name="IPv6", outcome="skipped", reason="no network"))
    assert problems([good]) == []


def test_the_worst_comes_first() -> None:
    unsure = check("boot", "a clock", outcome="error", reason="no answer")
    rare = check("boot", "no oops", outcome="failed", reason="an oops")
    common = check("hardening", "sockets", outcome="failed", reason="telnet")
    found = problems(
        [
            validation(check(), unsure, common),
            validation(rare, common),
            validation(error="It never booted."),
        ]
    )
    assert [problem.name for problem in found] == [NOT_VALIDATED, "sockets", "no oops", "a clock"]
    assert [(place.image, place.check) for place in found[1].places] == [(0, 2), (1, 1)]
    assert found[0].places[0].check is None


def test_images_that_did_not_boot_for_one_reason_are_one_problem() -> None:
    found = problems(
        [validation(error="no KVM"), validation(error="no KVM"), validation(error="x")]
    )
    assert [(len(problem.places), problem.group) for problem in found] == [(2, WHOLE), (1, WHOLE)]


def test_an_image_without_checks_has_not_passed() -> None:
    assert [problem.reason for problem in problems([validation()])] == [NO_CHECKS]


def test_different_reasons_are_not_hidden() -> None:
    found = problems(
        [validation(check(outcome="failed", reason=reason)) for reason in ("a", "b", "a", "c")]
    )
    assert [problem.reason for problem in found] == ["a (and 2 other reasons)"]


def test_a_failure_without_a_reason_says_what_was_expected() -> None:
    found = problems([validation(check(outcome="failed", expected="status 0"))])
    assert [problem.reason for problem in found] == ["status 0"]


def test_groups_come_as_an_image_comes_to_life() -> None:
    checks = [check(group) for group in ("zebra", "seal", "boot", "ant")]
    assert ordered_groups([validation(*checks)]) == ["boot", "seal", "zebra", "ant"]


def test_labels_are_as_short_as_tells_images_apart() -> None:
    plain, uefi = validation(), validation(firmware="uefi")
    kvm = validation(accel="kvm")
    other = validation(variant="production")
    foreign = validation(variant="", image="dir/debian-13.qcow2.zst")
    assert labels([plain, other, foreign]) == ["minimal", "production", "debian-13"]
    assert labels([plain, uefi]) == ["minimal bios", "minimal uefi"]
    assert labels([plain, kvm]) == ["minimal bios tcg", "minimal bios kvm"]
    assert labels([plain, plain]) == ["1 minimal", "2 minimal"]


def test_a_run_has_its_problems() -> None:
    assert [len(problem.places) for problem in problems(run().validations)] == [1, 2, 2, 2]
