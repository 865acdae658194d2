"""Tasks that look at what the tasks after them would do."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature
from typing import Any

from invoke.tasks import Task


class Lens(Task[Any]):
    """A task that looks at the plan of the tasks after it instead of letting them run.

    `inv explain vexfs.image --variant minimal`: the body gets the context and the Plan.
    """

    def argspec(self, body: Callable[..., Any]) -> Signature:
        """The signature that the command line sees: without the context and the plan."""
        spec = super().argspec(body)
        return spec.replace(parameters=list(spec.parameters.values())[1:])
