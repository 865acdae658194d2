"""The options of the CI tasks: their defaults, their variables, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from invoke.config import Config

from tasks.ci.options import OPTIONS
from tasks.core.options import choose, words_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    for option in OPTIONS.values():
        monkeypatch.delenv(option.env, raising=False)
    settings: dict[str, Any] = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    return Config(overrides=settings)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_defaults_are_valid_and_no_result_depends_on_them(name: str, config: Config) -> None:
    option = OPTIONS[name]
    assert choose(option, None, config).problem == ""
    assert option.env == option.key.upper().replace(".", "_")
    assert not option.matters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variants", ""),
        ("variants", "minimal,tiny"),
        ("accels", "kvm,hvf"),
        ("accel", "hvf"),
        ("keep", "-1"),
        ("build_number", "../7"),
        ("commit_sha", "main"),
        ("webhook_format", "xml"),
        ("runners", "kvm"),
        ("runners", "hvf=macos-15"),
        ("runners", "kvm=${{ github.token }}"),
    ],
)
def test_bad_values_are_told(name: str, value: str, config: Config) -> None:
    problem = choose(OPTIONS[name], value, config).problem
    assert problem.startswith(f"{OPTIONS[name].flag} is ")


def test_the_webhook_is_told_by_the_environment_only(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OPTIONS["webhook_url"].secret
    monkeypatch.setenv("CI_WEBHOOK_URL", "https://hooks.example/secret")
    assert choose(OPTIONS["webhook_url"], None, config).value == "https://hooks.example/secret"


def test_lists_are_separated_by_commas() -> None:
    assert words_of(" a, b,,a ") == ("a", "b")
