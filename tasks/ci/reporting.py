"""Makes the reports of a run where people and machines look for them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.checks import Check, Validation
from tasks.artifacts.publish import publish_text
from tasks.ci import annotations as notes
from tasks.ci import junit, markdown
from tasks.ci.building import MANIFEST, Image, read_image
from tasks.ci.data import Link, ReportData, Size, Timeline
from tasks.ci.folder import last_build, sizes_in, sizes_of
from tasks.ci.gather import compare, links, moment, videos
from tasks.ci.origin import Origin, commit_of_checkout
from tasks.ci.report import page
from tasks.ci.timelines import stages_of
from tasks.ci.validating import FOLDER, Record, current, records_in, unknown
from tasks.core.errors import BadInput
from tasks.core.store import Store

if TYPE_CHECKING:
    from tasks.core.stage import Site, Step

TITLE = "vmbake images"
PAGE, JUNIT, SUMMARY = "report.html", "junit.xml", "summary.md"
VIDEOS = "videos"
NOT_VALIDATED = "It has not been validated since it was built: inv validate.image does that."


def write(data: ReportData, folder: Path) -> tuple[Path, ...]:
    """Write the report in its three forms; returns their paths, the page first.

    Raises:
        OSError: one can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / PAGE, folder / JUNIT, folder / SUMMARY)
    page.write(data, paths[0])
    junit.write(data.everything, data.commit, paths[1])
    publish_text(markdown.summary(data), paths[2])
    return paths


def announce(data: ReportData, env: Mapping[str, str] = os.environ) -> None:
    """Tell GitHub, if this is GitHub: the summary of the step and the annotations.

    Raises:
        OSError: GitHub's file can't be written.
    """
    markdown.append_summary(data, env)
    notes.announce(data.everything, env=env)


def set_outputs(values: Mapping[str, str], env: Mapping[str, str] = os.environ) -> bool:
    """Set the outputs of a step of GitHub Actions; False elsewhere. Values are single lines.

    Raises:
        OSError: GitHub's file can't be written.
    """
    name = env.get("GITHUB_OUTPUT", "")
    if not name:
        return False
    with Path(name).open("a", encoding="utf-8") as stream:
        stream.writelines(f"{key}={value}\n" for key, value in values.items())
    return True


def assemble(
    *,
    origin: Origin,
    started: datetime,
    around: Sequence[Check],
    validations: Iterable[Validation],
    timelines: Iterable[Timeline],
    sizes: Iterable[Size],
    files: Sequence[Link] = (),
    recordings: Iterable[Path] = (),
    target: Path,
) -> ReportData:
    """Everything that the reports are made from, as of now.

    Args:
        target: the page, to which links lead from.
    """
    now = datetime.now(UTC)
    return ReportData(
        title=f"{TITLE} {origin.version}".rstrip(),
        commit=origin.commit,
        build=origin.build,
        started=started.isoformat(timespec="seconds"),
        seconds=(now - started).total_seconds(),
        host=host_facts(),
        around=tuple(around),
        validations=tuple(validations),
        timelines=tuple(timelines),
        sizes=tuple(sizes),
        videos=videos(recordings, target),
        links=tuple(files),
    )


def host_facts() -> tuple[tuple[str, str], ...]:
    """What to know of this machine; nothing that names it."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = (system or platform.system(), f"{os.cpu_count()} cores", f"{memory >> 30} GiB")
    return (("Host", ", ".join(words)), ("Python", platform.python_version()))


def recordings_of(root: Path) -> list[Path]:
    """The videos of DSM's wizard in this checkout, by name."""
    return sorted((root / VIDEOS).glob("*.webm"))


def compare_sizes(images: Iterable[Image], into: Path) -> tuple[Size, ...]:
    """The artifacts of this run against those of the newest build in `into`."""
    measured = {kind: each for image in images for kind, each in sizes_of(image.document).items()}
    last = last_build(into)
    then = sizes_in(last) if last else {}
    names = {kind: each.name for kind, each in (*then.items(), *measured.items())}
    return compare(
        {names[kind]: each.size_bytes for kind, each in measured.items()},
        {names[kind]: each.size_bytes for kind, each in then.items()},
    )


def images_in(output: Path) -> list[Image]:
    """The finished images in the output folder."""
    found = map(read_image, sorted(output.glob(f"*{MANIFEST}")))
    return [image for image in found if image]


def place(site: Site, into: str) -> Path:
    """The folder that gets a folder per build."""
    return Path(into).expanduser().absolute() if into else site.output / "ci"


def report(step: Step, origin: Origin, into: Path) -> tuple[Path, ...]:
    """Write the report on what is there now, and tell GitHub; returns the files.

    Raises:
        BadInput: there is nothing to report on.
        OSError: a file can't be written.
    """
    images, records = images_in(step.site.output), records_in(step.site.output / FOLDER)
    if not images and not records:
        raise BadInput(
            f"There is no image in {step.site.output}, and no record of a validation.",
            hint="inv vexfs.image makes an image, inv validate.image looks at it.",
        )
    commit = origin.commit or commit_of_checkout(step.runner, step.site.root)
    data = survey(step.site, images, records, replace(origin, commit=commit), into)
    paths = write(data, into)
    announce(data)
    return paths


def survey(
    site: Site, images: Sequence[Image], records: Sequence[Record], origin: Origin, into: Path
) -> ReportData:
    """The report data of the images that are there and their latest validations.

    Validations of other bytes than those that are there are left out. Foreign images, which have
    no manifest, are taken as their records say.
    """
    known = {image.disk.name for image in images}
    validations = [each.validation for each in records if each.validation.image not in known]
    for image in images:
        found = [record.validation for record in current(image, records)]
        validations += found or [unknown(image, datetime.now(UTC), NOT_VALIDATED)]
    page_path = into / PAGE
    store, started = Store(site.state), earliest(validations)
    return assemble(
        origin=origin,
        started=started,
        around=(),
        validations=validations,
        timelines=[
            Timeline(
                image=image.disk.name,
                stages=stages_of(image, store, started, page_path, copy_logs=False),
            )
            for image in images
        ],
        sizes=compare_sizes(images, into),
        files=links([path for image in images for path in image.files], page_path),
        recordings=recordings_of(site.root),
        target=page_path,
    )


def earliest(validations: Iterable[Validation]) -> datetime:
    """When the first validation began; now if there is none."""
    moments = [datetime.now(UTC)]
    for validation in validations:
        try:
            moments.append(moment(validation.started))
        except ValueError:
            continue
    return min(moments)
