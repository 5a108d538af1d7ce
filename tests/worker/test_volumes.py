"""A host's volumes made what they should be, by an engine that is a dictionary."""

from __future__ import annotations

from worker.errors import EngineFault
from worker.protocol import DesiredVolume, ObservedVolume
from worker.volumes import HostVolumes


class Books:
    """What the engine has; `refuses` names what it cannot do."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = dict(sizes)
        self.refuses: set[str] = set()
        self.asked = 0

    def volumes(self) -> list[ObservedVolume]:
        self.asked += 1
        return [ObservedVolume(name=name, size_bytes=size, used_bytes=7) for name, size in self.sizes.items()]

    def _set(self, volume: DesiredVolume) -> None:
        if volume.name in self.refuses:
            raise EngineFault(f"{volume.name} cannot be.")
        self.sizes[volume.name] = volume.size_bytes

    make_volume = resize_volume = _set

    def remove_volume(self, name: str) -> None:
        if name in self.refuses:
            raise EngineFault(f"{name} is in use.")
        del self.sizes[name]


def wanted(name: str, size: int = 10, *, gone: bool = False) -> DesiredVolume:
    return DesiredVolume(name=name, team="acme", size_bytes=size, gone=gone)


def test_what_lacks_is_made_resized_or_removed_and_others_are_left_alone() -> None:
    books = Books(small=5, old=1, strange=1)
    volumes = HostVolumes(books)
    assert volumes.settle((wanted("new"), wanted("small"), wanted("old", gone=True)))
    assert books.sizes == {"new": 10, "small": 10, "strange": 1}
    assert volumes.observed == (
        ObservedVolume(name="new", size_bytes=10),
        ObservedVolume(name="small", size_bytes=10, used_bytes=7),
        ObservedVolume(name="old", gone=True),
    )


def test_the_engine_is_asked_again_only_when_something_is_new_or_time_has_passed() -> None:
    books = Books()
    volumes = HostVolumes(books)
    assert volumes.settle((wanted("a"),))
    assert not volumes.settle((wanted("a"),)) and books.asked == 1
    volumes.look_again()
    assert volumes.settle((wanted("a"),)) and books.asked == 2
    assert not volumes.settle(()) and volumes.observed == ()


def test_a_refusal_is_told_and_tried_again() -> None:
    books = Books(held=1)
    books.refuses = {"held"}
    volumes = HostVolumes(books)
    assert volumes.settle((wanted("held", gone=True),))
    assert volumes.observed and "in use" in volumes.observed[0].trouble and not volumes.observed[0].gone
    books.refuses = set()
    assert volumes.settle((wanted("held", gone=True),))
    assert volumes.observed[0].gone and books.sizes == {}
