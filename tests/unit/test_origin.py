"""Who runs the pipeline, told by GitHub, GitLab, the options, or nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.ci.origin import Origin, commit_of_checkout, find_origin
from tasks.core.errors import BadInput
from tasks.core.process import Runner

SHA = "5cc89da2ff562b57b9f0cabfd15cdd31add8c7fe"
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SHA": SHA,
    "GITHUB_RUN_NUMBER": "128",
    "GITHUB_RUN_ID": "987654321",
    "GITHUB_REF_NAME": "v1.2.3",
    "GITHUB_REF_TYPE": "tag",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "somebody/images",
    "GITHUB_WORKFLOW_REF": "somebody/images/.github/workflows/images.yml@refs/tags/v1.2.3",
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_COMMIT_SHA": SHA,
    "CI_COMMIT_TAG": "v1.2.3",
    "CI_PIPELINE_IID": "42",
    "CI_PROJECT_URL": "https://gitlab.com/somebody/images",
    "CI_PIPELINE_URL": "https://gitlab.com/somebody/images/-/pipelines/7",
}


def origin(
    env: dict[str, str], *, tag: str = "", build_number: str = "", commit_sha: str = ""
) -> Origin:
    return find_origin(tag=tag, build_number=build_number, commit_sha=commit_sha, env=env)


def test_github_tells_everything() -> None:
    assert origin(GITHUB) == Origin(
        system="github",
        build="128",
        commit=SHA,
        tag="v1.2.3",
        version="1.2.3",
        repository="https://github.com/somebody/images",
        run_url="https://github.com/somebody/images/actions/runs/987654321",
        builder="https://github.com/somebody/images/.github/workflows/images.yml@refs/tags/v1.2.3",
    )


def test_a_branch_of_github_is_no_tag() -> None:
    found = origin({**GITHUB, "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"})
    assert (found.tag, found.version) == ("", "")


def test_gitlab_tells_everything() -> None:
    found = origin(GITLAB)
    assert (found.system, found.build, found.commit) == ("gitlab", "42", SHA)
    assert (found.version, found.run_url) == ("1.2.3", GITLAB["CI_PIPELINE_URL"])


def test_what_was_given_wins() -> None:
    found = origin(GITHUB, tag="v9", build_number="nightly-3", commit_sha="abcdef0")
    assert (found.version, found.build, found.commit) == ("9", "nightly-3", "abcdef0")
    assert found.folder == "nightly-3"


def test_on_a_desk_nothing_is_known() -> None:
    assert origin({}) == Origin()
    assert origin({}).folder == "local"


def test_variables_of_a_system_that_is_not_there_do_not_count() -> None:
    assert origin({**GITHUB, "GITHUB_ACTIONS": ""}) == Origin()
    assert origin({**GITLAB, "GITLAB_CI": ""}) == Origin()


@pytest.mark.parametrize(
    ("tag", "version"),
    [("v1.2.3", "1.2.3"), ("1.2", "1.2"), ("v2", "2"), ("v1.0.0-rc.1", "1.0.0-rc.1")],
)
def test_a_tag_is_a_version(tag: str, version: str) -> None:
    assert origin({}, tag=tag).version == version


@pytest.mark.parametrize(
    "tag",
    [
        "latest",
        "release/1.2",
        "v1.2.3 ",
        "v1.2.3;id",
        "v../1",
        "vv1",
        "v",
        "v1.2\n",
        f"v1-{'x' * 64}",
    ],
)
def test_a_tag_that_is_no_version_is_refused(tag: str) -> None:
    with pytest.raises(BadInput, match="is no version"):
        origin({}, tag=tag)
    with pytest.raises(BadInput, match="is no version"):
        origin({**GITHUB, "GITHUB_REF_NAME": tag})


def test_what_ci_says_is_checked_as_options_are() -> None:
    with pytest.raises(BadInput, match="The number of this build"):
        origin({**GITHUB, "GITHUB_RUN_NUMBER": "../../etc"})
    with pytest.raises(BadInput, match="The commit of this build"):
        origin({**GITLAB, "CI_COMMIT_SHA": "main; id"})


def test_the_commit_comes_from_git_where_there_is_git(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "log")
    assert commit_of_checkout(runner, tmp_path) == ""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", tmp_path], check=True)
    subprocess.run(
        [*git, "-C", tmp_path, "commit", "-q", "--allow-empty", "-m", "first"], check=True
    )
    assert len(commit_of_checkout(runner, tmp_path)) == 40
