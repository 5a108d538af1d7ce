"""`dataclass` whose methods are closures, not generated: compiling six functions for each of 90 classes is most of a start.

A class takes 0.1 ms rather than 0.7; its instances, which the standard library's would make in 1 µs, take 2 (runtime/oci/fields.py
goes past `__init__`). All that dataclasses offers for instances works: fields, replace, asdict, match.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen=False, slots=False, kw_only=False):
        """As dataclasses.dataclass, with the three flags that are used."""

        def decorate(cls):
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
            found = dataclasses.fields(made)
            made.__init__ = _init(made)
            made.__repr__ = _repr(found)
            made.__eq__, made.__hash__ = _comparison([field.name for field in found if field.compare], frozen)
            if frozen:
                made.__setattr__ = made.__delattr__ = _refuse
            return made

        return decorate


class Part(NamedTuple):
    """A field: `put` sets it, also in an instance of a frozen class, and `default` makes its default, None without one."""

    name: str
    put: Callable[[Any, Any], None]
    default: Callable[[], Any] | None


def parts(cls: type) -> list[Part]:
    """The fields of a dataclass, in order."""
    return [Part(field.name, _setter(cls, field.name), _default(field)) for field in dataclasses.fields(cls)]


def _setter(cls: type, name: str) -> Callable[[Any, Any], None]:
    slot = getattr(cls, name, None)
    if isinstance(slot, MemberDescriptorType):
        return slot.__set__

    def put(instance: Any, value: Any) -> None:
        object.__setattr__(instance, name, value)

    return put


def _default(field: dataclasses.Field[Any]) -> Callable[[], Any] | None:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    value = field.default
    return None if value is dataclasses.MISSING else lambda: value


def _init(cls: type) -> Callable[..., None]:
    plan = parts(cls)
    positional = [field.name for field in dataclasses.fields(cls) if not field.kw_only]

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        if args:
            given |= _named(cls, positional, args, given)
        left = len(given)
        for name, put, default in plan:
            if name in given:
                put(self, given[name])
                left -= 1
            elif default:
                put(self, default())
            else:
                raise TypeError(f"{cls.__name__} was given no {name!r}")
        if left:
            unknown = sorted(given.keys() - {part.name for part in plan})
            raise TypeError(f"{cls.__name__} has no {', '.join(unknown)}")

    return __init__


def _named(cls: type, names: list[str], args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Positional arguments by their names."""
    if len(args) > len(names):
        raise TypeError(f"{cls.__name__} takes {len(names)} positional arguments, not {len(args)}")
    found = dict(zip(names, args, strict=False))
    if twice := sorted(found.keys() & given.keys()):
        raise TypeError(f"{cls.__name__} was given {', '.join(twice)} twice")
    return found


def _repr(found: tuple[dataclasses.Field[Any], ...]) -> Callable[[Any], str]:
    names = [field.name for field in found if field.repr]

    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _comparison(names: list[str], frozen: bool) -> tuple[Callable[[Any, Any], bool], Callable[[Any], int] | None]:
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda _: ()

    def __eq__(self: Any, other: Any) -> bool:
        return bool(values(self) == values(other)) if type(self) is type(other) else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __eq__, __hash__ if frozen else None


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__name__} is frozen: {name} cannot be changed.")
