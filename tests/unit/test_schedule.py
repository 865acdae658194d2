"""When stages start: a fake house, no threads, no time but the order of things."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tasks.core.capacity import Capacity, Cost, capacity_of_host, core_count
from tasks.core.schedule import Schedule, Verdict

GIB = 1 << 30
ONE = Cost()


@dataclass(frozen=True, eq=False)
class Fake:
    """A stage."""

    name: str
    parents: tuple[Fake, ...] = ()
    is_live: bool = False
    cost: Cost = ONE
    outcome: str = ""


def live(name: str, *parents: Fake, cores: float = 1) -> Fake:
    return Fake(name, parents, is_live=True, cost=Cost(cores=cores))


def machine(cores: int, memory: int = 8) -> Capacity:
    return Capacity(stages=cores, cores=cores, memory_bytes=memory * GIB, kvm_guests=cores)


class House:
    """Carries orders out as a test says; a word tells what is going on."""

    def __init__(self, *items: Fake, cores: int = 2, goals: str = "", fresh: str = "") -> None:
        self.items = {item.name: item for item in items}
        self.fresh = fresh.split()
        self.broken: list[str] = []
        self.looked: list[str] = []
        self.schedule = Schedule(
            list(items),
            [self.items[name] for name in goals.split()] or [items[-1]],
            capacity=machine(cores),
            cost=lambda item: item.cost,
            look=self.look,
            outcome=lambda item: item.outcome or item,
        )

    def look(self, item: Fake) -> Verdict:
        self.looked.append(item.name)
        if item.name in self.broken:
            return "failed"
        return "fresh" if item.name in self.fresh else "stale"

    def orders(self) -> str:
        return " ".join(f"{verb}:{item.name}" for verb, item in self.schedule.step())

    def done(self, name: str, *, failed: bool = False) -> str:
        self.schedule.over(self.items[name], failed=failed)
        return self.orders()

    def opened(self, name: str) -> str:
        self.schedule.opened(self.items[name])
        return self.orders()

    @property
    def is_over(self) -> bool:
        return not self.orders() and not self.schedule.busy


def test_what_does_not_stand_on_each_other_goes_at_the_same_time() -> None:
    base = Fake("base")
    tools, key = Fake("tools", (base,)), Fake("key")
    house = House(base, tools, key, Fake("image", (tools, key)))
    assert house.orders() == "start:base start:key"
    assert house.done("base") == "start:tools"
    assert house.done("tools") == ""
    assert house.done("key") == "start:image"
    assert house.done("image") == ""
    assert house.is_over


def test_no_more_than_there_are_cores() -> None:
    house = House(*map(Fake, "abcd"), cores=2, goals="a b c d")
    assert house.orders() == "start:a start:b"
    assert house.done("b") == "start:c"


def test_one_job_is_one_after_the_other_whatever_it_costs() -> None:
    idle = Cost(cores=0)
    house = House(Fake("a", cost=idle), Fake("b", cost=idle), cores=1, goals="a b")
    assert house.orders() == "start:a"
    assert house.done("a") == "start:b"


def test_what_is_larger_than_the_machine_goes_alone() -> None:
    house = House(Fake("a"), Fake("big", cost=Cost(cores=9)), Fake("c"), goals="a big c")
    assert house.orders() == "start:a start:c"
    assert house.done("a") == ""
    assert house.done("c") == "start:big"
    assert house.done("big") == ""


def test_memory_and_guests_under_kvm_are_counted_too() -> None:
    hungry = Cost(cores=0, memory_bytes=5 * GIB)
    house = House(Fake("a", cost=hungry), Fake("b", cost=hungry), cores=9, goals="a b")
    assert house.orders() == "start:a"
    guest = Cost(cores=0, kvm_guests=2)
    house = House(Fake("a", cost=guest), Fake("b", cost=guest), cores=3, goals="a b")
    assert house.orders() == "start:a"


def test_a_port_is_had_by_one_at_a_time() -> None:
    door = Cost(holds=frozenset({"port 2222"}))
    house = House(Fake("a", cost=door), Fake("b", cost=door), Fake("c"), cores=9, goals="a b c")
    assert house.orders() == "start:a start:c"
    assert house.done("a") == "start:b"


def test_a_failure_stops_what_stands_on_it_and_nothing_else() -> None:
    a, b = Fake("a"), Fake("b")
    house = House(a, b, Fake("on-a", (a,)), Fake("on-b", (b,)), goals="on-a on-b")
    assert house.orders() == "start:a start:b"
    assert house.done("a", failed=True) == ""
    assert house.done("b") == "start:on-b"
    assert house.done("on-b") == ""
    assert house.is_over
    assert "on-a" not in house.looked


def test_what_cannot_be_looked_at_has_failed() -> None:
    a = Fake("a")
    house = House(a, Fake("b", (a,)), Fake("c"), goals="b c")
    house.broken = ["a"]
    assert house.orders() == "start:c"
    assert house.done("c") == ""
    assert house.is_over


def test_children_are_looked_at_when_their_parents_are_made_and_not_before() -> None:
    a = Fake("a")
    b = Fake("b", (a,))
    house = House(a, b, Fake("c", (b,)))
    house.orders()
    assert house.looked == ["a"]
    house.fresh = ["b", "c"]
    assert house.done("a") == ""
    assert house.looked == ["a", "b", "c"]
    assert house.is_over


def test_of_those_that_would_leave_the_same_one_is_made() -> None:
    a, b = Fake("a", outcome="tea"), Fake("b", outcome="tea")
    house = House(a, b, Fake("on-a", (a,)), Fake("on-b", (b,)), goals="on-a on-b", cores=9)
    assert house.orders() == "start:a"
    house.fresh = ["b"]
    assert house.done("a") == "start:on-a start:on-b"
    assert house.looked == ["a", "b", "b", "on-a", "on-b"]


def test_a_failure_is_that_of_all_that_would_leave_the_same() -> None:
    a, b = Fake("a", outcome="tea"), Fake("b", outcome="tea")
    house = House(a, b, Fake("on-a", (a,)), Fake("on-b", (b,)), goals="on-a on-b", cores=9)
    assert house.orders() == "start:a"
    assert house.done("a", failed=True) == ""
    assert house.is_over
    assert house.looked == ["a", "b"]


def test_what_is_held_fails_with_what_it_stands_on() -> None:
    oven, stove = live("oven"), live("stove")
    a, b = Fake("a", (oven,), outcome="tea"), Fake("b", (stove, oven), outcome="tea")
    c = Fake("c", (stove,))
    house = House(oven, stove, a, b, c, goals="a b c", cores=9)
    assert house.orders() == "start:oven start:stove"
    assert house.done("stove", failed=True) == ""
    assert house.opened("oven") == "start:a"
    assert house.done("a") == "close:oven"
    assert house.done("oven") == ""
    assert house.is_over


def test_a_live_stage_lasts_from_its_first_user_to_its_last() -> None:
    dough, oven = Fake("dough"), live("oven")
    bread, cake = Fake("bread", (dough, oven)), Fake("cake", (oven, dough))
    house = House(dough, oven, bread, cake, cores=3, goals="bread cake")
    assert house.orders() == "start:dough"  # nobody could use the oven yet
    assert house.done("dough") == "start:oven"
    assert house.opened("oven") == "start:bread start:cake"
    assert house.done("bread") == ""
    assert house.done("cake") == "close:oven"
    assert house.schedule.busy
    assert house.done("oven") == ""
    assert house.is_over


def test_a_live_stage_that_nobody_needs_is_never_opened() -> None:
    oven = live("oven")
    house = House(oven, Fake("bread", (oven,)), fresh="bread")
    assert house.orders() == ""
    assert house.is_over


def test_a_live_stage_may_stand_on_another() -> None:
    oven = live("oven")
    pot = live("pot", oven)
    house = House(oven, pot, Fake("jam", (pot,)), cores=4)
    assert house.orders() == "start:oven"
    assert house.opened("oven") == "start:pot"
    assert house.opened("pot") == "start:jam"
    assert house.done("jam") == "close:pot"
    assert house.done("pot") == "close:oven"


def test_a_live_goal_is_opened_for_its_own_sake_last() -> None:
    oven = live("oven")
    assert House(oven).orders() == "start:oven"
    dough = Fake("dough")
    bread = Fake("bread", (dough, oven))
    house = House(dough, oven, bread, goals="oven bread", fresh="bread")
    assert house.orders() == "start:dough"
    assert house.done("dough") == "start:oven"
    assert house.opened("oven") == "close:oven"


def test_a_machine_counts_all_its_cores() -> None:
    base = Fake("base")
    vm = live("vm", base, cores=2)
    house = House(base, vm, Fake("other"), Fake("snapshot", (vm,)), goals="other snapshot", cores=2)
    assert house.orders() == "start:base start:other"
    assert house.done("base") == ""  # the machine takes both cores
    assert house.done("other") == "start:vm"
    assert house.opened("vm") == "start:snapshot"


def test_users_of_an_open_stage_go_before_others() -> None:
    vm = live("vm", cores=2)
    house = House(Fake("a"), vm, Fake("snapshot", (vm,)), Fake("b"), goals="a snapshot b", cores=2)
    assert house.orders() == "start:a start:b"
    house = House(vm, Fake("b"), Fake("snapshot", (vm,)), goals="snapshot b", cores=2)
    assert house.orders() == "start:vm"
    assert house.opened("vm") == "start:snapshot"
    assert house.done("snapshot") == "close:vm"
    assert house.done("vm") == "start:b"


@pytest.mark.parametrize("cores", [1, 2])
def test_nothing_waits_for_ever_for_what_an_open_stage_holds(cores: int) -> None:
    door = Cost(cores=9, holds=frozenset({"door"}))
    vm = Fake("vm", is_live=True, cost=door)
    house = House(vm, Fake("user", (vm,), cost=door), cores=cores)
    assert house.orders() == "start:vm"
    assert house.opened("vm") == "start:user"


def test_a_live_stage_that_does_not_open_takes_its_users_with_it() -> None:
    oven = live("oven")
    house = House(oven, Fake("bread", (oven,)), Fake("salad"), goals="bread salad")
    assert house.orders() == "start:oven start:salad"
    assert house.done("oven", failed=True) == ""
    assert house.done("salad") == ""
    assert house.is_over


def test_no_jobs_means_all_cores() -> None:
    assert capacity_of_host(0).cores == core_count()
    assert (capacity_of_host(1).stages, capacity_of_host(7).cores) == (1, 7)


def test_a_run_has_the_cores_and_the_memory_that_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 4, 5})
    monkeypatch.setattr("tasks.core.capacity.memory_of_host", lambda: (8 * GIB, 3 * GIB))
    assert capacity_of_host(0).cores == 3
    assert capacity_of_host(0).memory_bytes == 3 * GIB


def test_a_share_of_the_cores_grows_with_them() -> None:
    half = Cost(share=0.5)
    for cores in (1, 2):
        house = House(Fake("a", cost=half), Fake("b"), goals="a b", cores=cores)
        assert house.orders() == " ".join(["start:a", "start:b"][:cores])
    house = House(Fake("a", cost=half), *map(Fake, "bcd"), goals="a b c d", cores=4)
    assert house.orders() == "start:a start:b start:c"
