"""Which host a set of names means."""

from __future__ import annotations

from otel_pipeline.gpu.hosts import Hosts
from otel_pipeline.limits import GPU_HOST_NAMES_MAX


def hosts(*names: tuple[str, ...]) -> Hosts[str]:
    found: Hosts[str] = Hosts()
    for each in names:
        if found.touch(each) is None:
            found.put(each, each[0])
    return found


def test_any_name_leads_to_a_host() -> None:
    found = hosts(("id-1", "alpha"))
    assert found.find(("id-1",)) == found.find(("alpha",)) == found.find(("alpha", "container")) == "id-1"


def test_a_lesser_name_in_common_does_not_make_two_ids_one_host() -> None:
    found = hosts(("id-1", "localhost"), ("id-2", "localhost"))
    assert (found.find(("id-1",)), found.find(("id-2", "localhost"))) == ("id-1", "id-2")
    assert found.find(("localhost",)) is None
    assert found.find(("id-3", "localhost")) is None


def test_a_better_name_that_comes_later_is_taken_on() -> None:
    found = hosts(("alpha",), ("id-1", "alpha"))
    assert len(found) == 1
    assert found.find(("id-1",)) == found.find(("alpha",)) == "alpha"
    assert found.find(("id-2", "alpha")) is None


def test_the_host_that_was_touched_least_recently_goes_first() -> None:
    found = hosts(("a", "x"), ("b",), ("a", "x"))
    assert found.forget_oldest() == "b"
    assert found.find(("b",)) is None
    found.forget("a")
    assert (len(found), found.find(("x",))) == (0, None)


def test_names_of_a_host_are_bounded() -> None:
    found = hosts(("a",), *((f"name-{index}", "a") for index in range(3)))
    many = ("b", *(f"also-{index}" for index in range(50)))
    found.put(many, "b")
    assert found.find((f"also-{GPU_HOST_NAMES_MAX - 2}",)) == "b"
    assert found.find((f"also-{GPU_HOST_NAMES_MAX}",)) is None
