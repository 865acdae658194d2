"""What tests of disks that are opened on this host have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.guest import mounter
from tests.standins import ordinary_user


@pytest.fixture(params=["kernel", "fuse2fs"])
def way(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who mounts: the kernel for root, or fuse2fs for an ordinary user.

    A module says by its own fixture `folder` where it works; the user gets all that is in it.
    """
    if request.param == "fuse2fs":
        ordinary = ordinary_user.mounter_of(folder)
        monkeypatch.setattr(mounter, "choose", lambda: ordinary)
    return str(request.param)
