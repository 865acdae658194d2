"""The matrix: every variant on every accelerator, on the runner that has it."""

from __future__ import annotations

import json

import pytest

from tasks.ci.matrix import matrix
from tasks.core.errors import BadInput

RUNNERS = "kvm=ubuntu-24.04,tcg=self-hosted"


def test_each_variant_runs_on_each_accelerator() -> None:
    text = matrix("minimal, production", "kvm,tcg", RUNNERS)
    assert "\n" not in text
    assert json.loads(text) == {
        "include": [
            {"variant": "minimal", "accel": "kvm", "runner": "ubuntu-24.04"},
            {"variant": "minimal", "accel": "tcg", "runner": "self-hosted"},
            {"variant": "production", "accel": "kvm", "runner": "ubuntu-24.04"},
            {"variant": "production", "accel": "tcg", "runner": "self-hosted"},
        ]
    }


def test_what_is_named_twice_is_one_job() -> None:
    assert len(json.loads(matrix("minimal,minimal", "kvm", RUNNERS))["include"]) == 1


def test_an_accelerator_without_a_runner_is_told() -> None:
    with pytest.raises(BadInput, match="no runner for tcg"):
        matrix("minimal", "kvm,tcg", "kvm=ubuntu-24.04")
