"""The jobs of a matrix: each variant on each accelerator, with the label of its runner.

The form is that of `strategy.matrix` of GitHub Actions: `{"include": [{…}, …]}`.
"""

from __future__ import annotations

import json

from tasks.core.errors import BadInput
from tasks.core.options import words_of


def matrix(variants: str, accels: str, runners: str) -> str:
    """The matrix as one line of JSON, ready for `fromJSON`.

    Args:
        variants, accels: lists, separated by commas.
        runners: `ACCEL=LABEL` for each accelerator.

    Raises:
        BadInput: an accelerator has no runner.
    """
    labels = dict(word.split("=", 1) for word in words_of(runners))
    if lacking := [accel for accel in words_of(accels) if accel not in labels]:
        raise BadInput(
            f"ci.runners names no runner for {' and '.join(lacking)}.",
            hint="It is like kvm=ubuntu-24.04,tcg=ubuntu-24.04.",
        )
    jobs = [
        {"variant": variant, "accel": accel, "runner": labels[accel]}
        for variant in words_of(variants)
        for accel in words_of(accels)
    ]
    return json.dumps({"include": jobs})
