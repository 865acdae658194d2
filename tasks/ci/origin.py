"""Who runs the pipeline, and what is built: told by options, GitHub Actions, GitLab, or git.

GitHub: https://docs.github.com/en/actions/reference/workflows-and-actions/variables
GitLab: https://docs.gitlab.com/ci/variables/predefined_variables/
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.ci.options import commit_digest, plain_name
from tasks.core.errors import BadInput, VmbakeError

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.core.process import Runner

# What a build is called that nobody numbered.
LOCAL = "local"
# v1.2.3, 1.2, v1.2.3-rc.1; it becomes part of file names.
VERSION_TAG = re.compile(r"v?(\d+(?:\.\d+)*(?:[-+~.][0-9A-Za-z.+~_-]*)?)")
LONGEST_VERSION = 64


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of a run before it begins.

    Args:
        system: github, gitlab, or "" elsewhere.
        build: its number; "" on a desk.
        version: that of the tag; "" if there is no tag.
        repository, run_url: URLs; "" if unknown.
        builder: URL of what runs the pipeline; "" on a desk.
    """

    system: str = ""
    build: str = ""
    commit: str = ""
    tag: str = ""
    version: str = ""
    repository: str = ""
    run_url: str = ""
    builder: str = ""

    @property
    def folder(self) -> str:
        """The name of the folder of its artifacts."""
        return self.build or LOCAL


def find_origin(
    *, tag: str, build_number: str, commit_sha: str, env: Mapping[str, str] = os.environ
) -> Origin:
    """The origin from the options, and where they say nothing, from the CI system.

    Raises:
        BadInput: the tag is not a version, or a variable is not what it should be.
    """
    known = from_github(env) or from_gitlab(env) or Origin()
    chosen = tag or known.tag
    build, commit = build_number or known.build, commit_sha or known.commit
    if wrong := plain_name(build):
        raise BadInput(f"The number of this build is {build!r}: {wrong}")
    if wrong := commit_digest(commit):
        raise BadInput(f"The commit of this build is {commit!r}: {wrong}")
    return Origin(
        system=known.system,
        build=build,
        commit=commit,
        tag=chosen,
        version=version_of_tag(chosen),
        repository=known.repository,
        run_url=known.run_url,
        builder=known.builder,
    )


def from_github(env: Mapping[str, str]) -> Origin | None:
    """What GitHub Actions says; None if it is not there."""
    if env.get("GITHUB_ACTIONS") != "true":
        return None
    server, name = env.get("GITHUB_SERVER_URL", ""), env.get("GITHUB_REPOSITORY", "")
    repository = f"{server}/{name}" if server and name else ""
    run = env.get("GITHUB_RUN_ID", "")
    workflow = env.get("GITHUB_WORKFLOW_REF", "")
    return Origin(
        system="github",
        build=env.get("GITHUB_RUN_NUMBER", ""),
        commit=env.get("GITHUB_SHA", ""),
        tag=env.get("GITHUB_REF_NAME", "") if env.get("GITHUB_REF_TYPE") == "tag" else "",
        repository=repository,
        run_url=f"{repository}/actions/runs/{run}" if repository and run else "",
        builder=f"{server}/{workflow}" if server and workflow else repository,
    )


def from_gitlab(env: Mapping[str, str]) -> Origin | None:
    """What GitLab says; None if it is not there."""
    if env.get("GITLAB_CI") != "true":
        return None
    return Origin(
        system="gitlab",
        build=env.get("CI_PIPELINE_IID", ""),
        commit=env.get("CI_COMMIT_SHA", ""),
        tag=env.get("CI_COMMIT_TAG", ""),
        repository=env.get("CI_PROJECT_URL", ""),
        run_url=env.get("CI_PIPELINE_URL", ""),
        builder=env.get("CI_PROJECT_URL", ""),
    )


def version_of_tag(tag: str) -> str:
    """`v1.2.3` is the version 1.2.3; "" for no tag.

    Raises:
        BadInput: it is no version.
    """
    if not tag:
        return ""
    match = VERSION_TAG.fullmatch(tag)
    if match is None or len(match[1]) > LONGEST_VERSION:
        raise BadInput(
            f"The tag {tag!r} is no version.",
            hint="Tags of images are like v1.2.3; for another run, unset CI_TAG.",
        )
    return match[1]


def commit_of_checkout(runner: Runner, root: Path) -> str:
    """The commit that is checked out; "" if git can't say."""
    try:
        return runner.output(["git", "-C", root, "rev-parse", "HEAD"], timeout_s=30).strip()
    except VmbakeError:
        return ""
