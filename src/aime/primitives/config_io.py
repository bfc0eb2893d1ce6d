"""Conversion of nested frozen dataclasses to dictionaries and YAML, and back with checked field types."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from aime.errors import AimeError, name_once, one_line
from aime.primitives.checksums import check_seal
from aime.primitives.files import read_small

T = TypeVar("T")
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""Values that YAML and JSON represent without tags."""

LATER: Mapping[str, object] = types.MappingProxyType({"later": True})
"""Metadata of a field that files of earlier versions lack: it then has its default."""


def later(before: object) -> Mapping[str, object]:
    """Metadata of a field that files of earlier versions lack: it then has the value `before`."""
    return {**LATER, "before": before}


def renamed(before: str) -> Mapping[str, object]:
    """Metadata of a field that files and flags of earlier versions call `before`."""
    return types.MappingProxyType({"renamed": before})


WAS_LIST: Mapping[str, object] = types.MappingProxyType({"was_list": True})
"""Metadata of a scalar field that is a list of equal values in files of earlier versions."""


def earlier_name(field: dataclasses.Field[Any]) -> str | None:
    """The name of a field in earlier versions, if it was renamed."""
    return field.metadata.get("renamed")


@dataclasses.dataclass(frozen=True)
class Removed:
    """Removed settings, for files and flags of earlier versions; a `ClassVar` of a config."""

    settings: Mapping[str, object]
    """Required values in files of earlier versions; settings not listed may have any value."""


def constant_of(kind: type, path: str) -> object:
    """The constant that replaces a setting of earlier versions, or None if `path` never was a setting.

    Args:
        kind: a dataclass.
        path: a dotted name of a `ClassVar` or property of `kind` or of a nested dataclass.

    Returns:
        The constant, the property, or a `Removed`.
    """
    hints: dict[str, Any] = get_type_hints(kind)
    name, _, rest = path.partition(".")
    for field in dataclasses.fields(kind):
        if name in (field.name, earlier_name(field)):
            inner = hints[field.name]
            return constant_of(inner, rest) if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None
    return getattr(kind, name) if _is_constant(kind, name) else None


_LONGEST = 2**18
"""Largest YAML file, in bytes; a run's config has about three thousand."""

_REMEDY = "correct it, or use the aime version that wrote the file"


def to_plain(value: object) -> Plain:
    """Convert dataclasses to dictionaries, tuples to lists and paths to strings.

    Raises:
        TypeError: if a value has an unsupported type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_plain(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
    if isinstance(value, Mapping):
        return {str(name): to_plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is a {type(value).__name__}, which has no plain form")


def nan_as_null(plain: Plain) -> Plain:
    """Replace NaN and infinity, which JSON lacks, by None."""
    if isinstance(plain, dict):
        return {name: nan_as_null(each) for name, each in plain.items()}
    if isinstance(plain, list):
        return [nan_as_null(each) for each in plain]
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def flatten(plain: Plain, prefix: str = "") -> dict[str, Plain]:
    """The values of nested mappings by dotted names.

    >>> flatten({"model": {"latent": 36}, "seed": 0})
    {'model.latent': 36, 'seed': 0}
    """
    if not isinstance(plain, dict):
        return {prefix.removesuffix("."): plain}
    return {name: value for key, each in plain.items() for name, value in flatten(each, f"{prefix}{key}.").items()}


def from_plain(kind: type[T], plain: object, source: str, field: str = "") -> T:
    """Build a dataclass from the result of `to_plain`; every field is required, except those marked `LATER`.

    Fields of earlier versions that are now constants (a `ClassVar` or a property) must have the constant's value.

    Field types: bool, int, float (also an integer, or a string like "1e-4", as YAML reads it), str, Path, Literal,
    X | None, tuple, and dataclasses of these.

    Args:
        kind: the dataclass.
        plain: a mapping by field names.
        source: the file, for error messages.
        field: the dotted name of `plain` in the file, for error messages.

    Raises:
        AimeError: if a field is unknown, missing or of another type, or the dataclass refuses a value.
    """
    if not isinstance(plain, Mapping):
        raise _misfit(source, field, plain, "a mapping of fields")
    hints = get_type_hints(kind)
    known = {each.name: each for each in dataclasses.fields(kind) if each.init}  # type: ignore[arg-type]
    present = {earlier_name(each): name for name, each in known.items()}
    plain = {name if present.get(name, name) in plain else present[name]: value for name, value in plain.items()}
    names = [name for name, each in known.items() if name in plain or not each.metadata.get("later")]
    for name in plain:
        if name not in known and not _is_constant(kind, name):
            raise AimeError(f"{source}: {_join(field, name)}: unknown field, expected {', '.join(known)}; {_REMEDY}")
    for name in names:
        if name not in plain:
            expected = _describe(hints[name])
            raise AimeError(f"{source}: {_join(field, name)}: missing field, expected {expected}; {_REMEDY}")
    values = {name: each.metadata["before"] for name, each in known.items() if "before" in each.metadata}
    for name in names:
        value = _the_same(plain[name]) if known[name].metadata.get("was_list") else plain[name]
        values[name] = _parse(hints[name], value, source, _join(field, name))
    try:
        built = kind(**values)
    except AimeError as error:
        raise AimeError(f"{source}: {name_once(f'{field}: {error}' if field else str(error))}") from error
    for name in plain:
        if name not in known:
            _check_constant(built, name, plain[name], source, _join(field, name))
    return built


def _the_same(value: object) -> object:
    """The value that a list repeats; any other value unchanged."""
    return value[0] if isinstance(value, list) and value and all(each == value[0] for each in value) else value


def _is_constant(kind: type, name: object) -> bool:
    if not isinstance(name, str) or name.startswith("_"):
        return False
    return isinstance(getattr(kind, name, None), property | bool | int | float | str | tuple | Removed)


def _check_constant(built: object, name: str, found: object, source: str, field: str) -> None:
    """Refuse a file in which a former field differs from the constant that replaces it."""
    value = getattr(built, name)
    if isinstance(value, Removed):
        given = found if isinstance(found, Mapping) else {}
        for each, expected in value.settings.items():
            _refuse_other(expected, given.get(each), source, f"{field}.{each}")
    else:
        _refuse_other(value, found, source, field)


def _refuse_other(value: object, found: object, source: str, field: str) -> None:
    parsed = _parse_float(found) if isinstance(value, float) else tuple(found) if isinstance(found, list) else found
    if parsed != value:
        raise AimeError(
            f"{source}: {field}: found {found!r}, expected {value!r}, which is a constant now; use the aime version "
            "that wrote the file"
        )


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, since `read_yaml` refuses them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """Refuses aliases, with which a few lines can expand beyond any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, and aime writes none")
        return super().compose_node(parent, index)


def to_yaml(value: object) -> str:
    """A dataclass or mapping as YAML without tags, in field order.

    Raises:
        TypeError: if a value has an unsupported type.
    """
    # escape non-ASCII: PyYAML would write Unicode line breaks unescaped and read them back as spaces
    return yaml.dump(to_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; runs no code and expands no aliases.

    Raises:
        AimeError: if the file is missing, unreadable, larger than 256 KiB, not YAML, not a mapping by names, or differs
            from its checksum.
    """
    try:
        text = read_small(path, _LONGEST).decode()
        check_seal(text, path)
        content = yaml.load(text, Loader=_Loader)
    except AimeError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, ArithmeticError, AttributeError) as error:
        problem = one_line(error)
        raise AimeError(f"{path}: not YAML: {problem[:200]}; restore the file or write it again") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise _misfit(str(path), "", content, "a mapping of fields")
    return content


def _join(field: str, name: object) -> str:
    return f"{field}.{name}" if field else str(name)


def _misfit(source: str, field: str, found: object, expected: str) -> AimeError:
    shown = repr(found) if len(repr(found)) <= 60 else repr(found)[:57] + "..."
    place = f"{source}: {field}" if field else source
    return AimeError(f"{place}: found {shown} ({type(found).__name__}), expected {expected}; {_REMEDY}")


def _parse(kind: Any, value: object, source: str, field: str) -> object:
    """Check and convert one value to a field's type."""
    optional = _without_none(kind)
    if optional is not None and value is None:
        return None
    inner = kind if optional is None else optional
    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
        return from_plain(inner, value, source, field)
    if get_origin(inner) is tuple:
        return _parse_tuple(inner, value, source, field)
    if get_origin(inner) is Literal:
        parsed = next((each for each in get_args(inner) if type(each) is type(value) and each == value), None)
    else:
        parsed = _SCALARS[inner](value)
    if parsed is None:
        raise _misfit(source, field, value, _describe(kind))
    return parsed


def _parse_tuple(kind: Any, value: object, source: str, field: str) -> tuple[object, ...]:
    kinds = get_args(kind)
    if not isinstance(value, list | tuple):
        raise _misfit(source, field, value, _describe(kind))
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise _misfit(source, field, value, _describe(kind))
    pairs = zip(kinds, value, strict=True)
    return tuple(_parse(each, item, source, f"{field}[{index}]") for index, (each, item) in enumerate(pairs))


def _parse_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    # refuse the strings "nan" and "infinity"; YAML's .nan and .inf arrive as floats
    return number if isinstance(value, float) or math.isfinite(number) else None


_SCALARS: dict[Any, Callable[[object], object]] = {
    bool: lambda value: value if isinstance(value, bool) else None,
    int: lambda value: value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None,
    float: _parse_float,
    str: lambda value: value if isinstance(value, str) else None,
    Path: lambda value: Path(value) if isinstance(value, str) else None,
}
"""Each returns None for a value of another type."""

_NAMES: dict[Any, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a path"}


def _without_none(kind: Any) -> Any:
    """X of `X | None`, or None if `kind` is not such a union."""
    if get_origin(kind) not in (Union, types.UnionType):
        return None
    rest = [each for each in get_args(kind) if each is not type(None)]
    if len(rest) != 1 or len(get_args(kind)) != 2:
        raise TypeError(f"{kind}: of unions only X | None has a plain form")
    return rest[0]


def _describe(kind: Any) -> str:
    """A field's type in words, for error messages."""
    optional = _without_none(kind)
    if optional is not None:
        return f"{_describe(optional)} or null"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return f"a list, each {_describe(kinds[0])}"
        return f"a list of {len(kinds)}: " + ", ".join(_describe(each) for each in kinds)
    return _NAMES.get(kind, "a mapping of fields")
