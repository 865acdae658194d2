"""A small checkout with vmbake's core and a bakery for a room, run by the real `inv`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parents[2] / "tasks"

ROOT_FILE = """
import sys
sys.modules.pop("tasks", None)
from invoke.collection import Collection
from tasks.cache.commands import namespace as cache
from tasks.core.explain import explain
from tasks.core.preflight import check
from tasks.toy import commands
namespace = Collection(explain, check)
namespace.add_collection(cache, name="cache")
namespace.add_collection(commands.namespace, name="toy")
"""

SETTINGS = """
tasks: {executor_class: tasks.core.executor.Executor}
vmbake: {state: .vmbake, output: output, no_cleanup: false, no_cache: false, jobs: 0, timeout: 600}
vexfs:
  {kind: wheat, salt: 5, heat: 200, wait: "", fail: "", filling: "", from_jar: "", spell: abrac,
   meet: ""}
"""

OPTIONS = """
from tasks.core.options import Option, Options
def option(name, **words):
    return Option(name=name, help=name, key=f"vexfs.{name}", env=f"TOY_{name.upper()}", **words)
OPTIONS = Options([
    option("kind", choices=("wheat", "rye", "spelt")),
    option("salt", kind=int),
    option("heat", kind=int),
    option("wait", matters=False),
    option("fail", matters=False),
    option("filling"),
    option("meet", matters=False),
    option("spell", secret=True),
    option("from_jar", matters=False),
])
"""

MILL = '''
"""Grinds."""
def grind(kind: str) -> str:
    """Docstring."""
    return f"{kind} flour"
'''

COMMANDS = '''
import errno, functools, os, time
from pathlib import Path
from invoke.collection import Collection
from invoke.tasks import call, task
from tasks.core.capacity import Cost
from tasks.core.errors import CompileFailed
from tasks.core.stage import Stage
from tasks.core.store import Result, new_record
from tasks.toy import mill
from tasks.toy.options import OPTIONS
stage = functools.partial(task, klass=Stage, options=OPTIONS)
ROOT = Path(__file__).parents[2]

def note(step, text):
    with (ROOT / "diary").open("a") as diary:
        diary.write(text + "\\n")

@stage()
def flour(step, kind):
    """Grind flour."""
    note(step, f"flour {kind}")
    (step.out / "flour").write_text(mill.grind(kind))

def too_much(site, *, salt, **_):
    if salt > 100:
        yield f"{salt} g of salt are too much."

@stage(pre=[flour], reads=lambda **_: [ROOT / "recipe"], check=too_much)
def dough(step, salt, wait):
    """Knead dough."""
    note(step, f"dough {salt}")
    (step.out / "half").write_text("half done")
    if wait:
        note(step, "waiting")
        while not Path(wait).exists():
            time.sleep(0.02)
    words = [l for l in (ROOT / "recipe").read_text().splitlines() if not l.startswith("#")]
    ground = step.result(flour).path("flour").read_text()
    (step.out / "dough").write_text(f"{ground} {salt} {words}")
    (step.out / "half").unlink()
    return {"grams": 500}

@stage()
def wood(step):
    """Chop wood."""
    (step.out / "log").write_text("oak")

@stage(pre=[wood], kind="live")
def oven(step, heat):
    """Heat the oven."""
    assert step.result(wood).path("log").exists()
    note(step, f"oven on {heat}")
    try:
        yield {"heat": heat}
    finally:
        note(step, "oven off")

@stage(pre=[dough, oven])
def bread(step, kind, fail):
    """Bake bread."""
    note(step, f"bread {step.live(oven)['heat']}")
    step.runner.run(["echo", "crackle"])
    if fail == "error":
        raise CompileFailed("The bread burnt.", hint="Watch it.", tail=("smoke",))
    if fail == "inner log":
        inner = step.work / "machine.log"
        inner.write_text("last words")
        raise CompileFailed("The oven broke.", log=inner)
    if fail == "command":
        step.runner.run(["sh", "-c", "echo black; exit 3"])
    if fail == "full":
        step.runner.run(["sh", "-c", "echo 'cat: write error: No space left on device'; exit 1"])
    (step.out / "bread").write_text(step.result(dough).path("dough").read_text().upper())

@stage(pre=[call(bread, kind="rye")])
def toast(step):
    """Toast rye bread."""
    note(step, "toast")
    (step.out / "toast").write_text(step.result(bread).path("bread").read_text())

class Jars:
    """The engine, as it were: what is in it is no file of the store."""
    folder = ROOT / "jars"

    def find(self, stage, fingerprint):
        for jar in self.folder.glob("*"):
            if jar.read_text() == fingerprint:
                return {"jar": jar.name}
        return None

    def damage(self, result):
        jar = result.facts["jar"]
        return "" if (self.folder / jar).exists() else f"{jar} was eaten"

def open_jar(site, *, from_jar, **_):
    if not from_jar:
        return None
    record = new_record("toy.jam", "", {}, {"jar": from_jar})
    return Result(directory=Path(), record={**record, "outputs": {}})

@stage(pre=[oven], kind="live")
def pot(step, kind):
    """Heat a pot in the oven."""
    note(step, f"pot on at {step.live(oven)['heat']}")
    yield "pot"
    note(step, "pot off")

@stage(pre=[flour, pot], keeper=Jars(), given=open_jar)
def jam(step, kind, from_jar):
    """Cook jam."""
    note(step, f"jam in {step.live(pot)}")
    Jars.folder.mkdir(exist_ok=True)
    jar = f"jar{len(list(Jars.folder.iterdir()))}"
    (Jars.folder / jar).write_text(step.fingerprint)
    return {"jar": jar}

@stage(pre=[jam], instead=lambda site, filling: None if filling else [jam])
def filled(step, filling):
    """Fill it."""
    note(step, f"filled with {filling}")

@stage(pre=[filled])
def doughnut(step):
    """Make a doughnut with or without filling."""
    note(step, f"doughnut on {sorted(step.stands_on)}")

@stage(pre=[flour], kind="action")
def sneeze(step, kind):
    """Sneeze."""
    note(step, f"sneeze {kind}")
    step.show("hatchi")

@stage()
def charm(step, spell):
    """Charm it."""
    note(step, spell)
    step.show("charmed")

def until(path):
    while not path.exists():
        time.sleep(0.02)

def perform(step, meet, wait, fail):
    """Go on when all who are to meet are here, then when there is a file, and fail if told so."""
    me = step.name.partition(".")[2]
    note(step, f"{me} in")
    (ROOT / f"{me}.here").touch()
    for other in meet.split():
        until(ROOT / f"{other}.here")
    if wait == "program":
        step.runner.run(["sh", "-c", f"echo $$ > {ROOT}/{me}.pid; exec sleep 600"])
    elif wait:
        until(Path(wait))
    if fail in (me, "all"):
        raise CompileFailed(f"The {me} fell.")
    if fail == f"full {me}":
        raise OSError(errno.ENOSPC, "No space left on device")
    if fail == f"bug {me}":
        raise ZeroDivisionError(me)
    note(step, f"{me} out")
    (step.out / me).write_text(me)

@stage()
def singer(step, meet, fail):
    """Sing."""
    perform(step, meet, "", fail)

@stage(cost=lambda site, **_: Cost(cores=1, holds=frozenset({"floor"})))
def dancer(step, kind, meet, wait, fail):
    """Dance."""
    perform(step, meet, wait, fail)

@stage(pre=[singer])
def song(step):
    """Record it."""
    note(step, "song")

@stage(pre=[singer, dancer])
def show(step):
    """Show it."""
    note(step, "show")

@stage(kind="live")
def stove(step):
    """Heat the stove with a program."""
    with step.runner.start(["sh", "-c", f"echo $$ > {ROOT}/stove.pid; exec sleep 600"]):
        until(ROOT / "stove.pid")
        note(step, "stove on")
        yield
        note(step, "stove off")

@stage(pre=[stove, dancer])
def soup(step, wait):
    """Cook soup."""
    step.runner.run(["kill", "-0", (ROOT / "stove.pid").read_text().strip()])
    note(step, "soup")
    until(ROOT / "soup.eaten")

@stage(
    depends=lambda site, kind, **_: {"size": "large" if kind == "spelt" else "small"},
    indirect=("kind",),
)
def tin(step, kind, meet, fail):
    """Grease a tin, of a size for the kind."""
    perform(step, meet, "", fail)

@stage(pre=[tin])
def cake(step, kind):
    """Bake a cake."""
    note(step, f"cake {kind}")

@stage()
def water(step, kind):
    """Boil water, which is the same for all kinds."""
    (step.out / "water").write_text("hot")

@stage(pre=[water])
def tea(step, meet, wait, fail):
    """Make tea."""
    perform(step, meet, wait, fail)

@stage(pre=[tea])
def cup(step, kind):
    """Fill a cup."""
    note(step, f"cup {kind}")

@stage()
def crowd(step):
    """Count those who may come."""
    note(step, f"crowd {step.cores}")

@task(pre=[bread])
def eat(c, kind=None):
    """Eat it."""
    print(f"eaten {kind}")

namespace = Collection(
    flour, dough, wood, oven, bread, toast, eat, pot, jam, filled, doughnut, sneeze, charm,
    singer, dancer, song, show, stove, soup, tin, cake, water, tea, cup, crowd
)
'''


class ToyHouse:
    """One checkout; `inv` runs in it as a user would run it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env: dict[str, str] = {}
        room = root / "tasks" / "toy"
        room.mkdir(parents=True)
        for part in ("core", "artifacts", "cache"):
            (root / "tasks" / part).symlink_to(TASKS / part)
        (root / "tasks" / "__init__.py").write_text("")
        (room / "__init__.py").write_text("")
        (room / "options.py").write_text(OPTIONS)
        (room / "mill.py").write_text(MILL)
        (room / "commands.py").write_text(COMMANDS)
        (root / "tasks.py").write_text(ROOT_FILE)
        (root / "invoke.yaml").write_text(SETTINGS)
        (root / "recipe").write_text("knead\n")

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start `inv` with these words."""
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.root,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def inv(self, *words: str, status: int = 0, **env: str) -> tuple[str, str]:
        """Run `inv` to its end, expect an exit status, and return stdout and stderr."""
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, f"{words}: status {process.returncode}\n{out}\n{err}"
        return out, err

    @property
    def diary(self) -> list[str]:
        """What the stages did since the last look."""
        path = self.root / "diary"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def explain(self, *words: str) -> dict[str, Any]:
        """`inv explain --json`, by stage."""
        out, _ = self.inv("explain", "--json", *words)
        return {entry["stage"]: entry for entry in json.loads(out)}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file."""
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
