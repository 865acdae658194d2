"""The root collection: which rooms exist, under which names."""

import sys

# Invoke loads this file under the name `tasks`, which is the package's: hand the name over.
sys.modules.pop("tasks", None)

from tasks.core.lazy import load_lazily  # noqa: E402

load_lazily("tasks")

from invoke.collection import Collection  # noqa: E402

from tasks.cache.commands import namespace as cache  # noqa: E402
from tasks.ci.commands import namespace as ci  # noqa: E402
from tasks.core.explain import explain  # noqa: E402
from tasks.core.preflight import check  # noqa: E402
from tasks.core.words import let_tasks_take_words  # noqa: E402
from tasks.host.commands import doctor  # noqa: E402
from tasks.validate.commands import namespace as validate  # noqa: E402
from tasks.vdsm.commands import build  # noqa: E402
from tasks.vdsm.commands import namespace as vdsm  # noqa: E402
from tasks.vexfs.commands import namespace as vexfs  # noqa: E402

let_tasks_take_words()

namespace = Collection(doctor, explain, check)
namespace.add_collection(cache, name="cache")
namespace.add_collection(build, name="build")
namespace.add_collection(vdsm, name="vdsm")
namespace.add_collection(vexfs, name="vexfs")
namespace.add_collection(validate, name="validate")
namespace.add_collection(ci, name="ci")
