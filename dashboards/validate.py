#!/usr/bin/env python3
"""Holds dashboards against Grafana's published schema, as its Foundation SDK has it in Python types.

    dashboards/validate.py FILE...    needs the package in requirements.txt; ends with 1 when something is wrong

A dashboard is read into the types and written again. What is not written again is no field of the schema; what does not
fit its type annotation has a wrong type or a value that the schema does not list.
"""

import enum
import json
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

PRIMITIVES = {str: str, bool: bool, int: int, float: (int, float)}


def lost(read, written, path=""):
    """Fields that did not come back."""
    if isinstance(read, dict) and isinstance(written, dict):
        for key, value in read.items():
            if key in written:
                yield from lost(value, written[key], f"{path}/{key}")
            elif value not in (None, [], {}, "", False):
                yield f"{path}/{key} is no field of the schema"
    elif isinstance(read, list) and isinstance(written, list) and len(read) == len(written):
        for at, (one, other) in enumerate(zip(read, written)):
            yield from lost(one, other, f"{path}/{at}")
    elif read != written:
        yield f"{path}: {read!r} is read as {written!r}"


def misfits(value, hint, path=""):
    """Values that are not what an annotation says."""
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        # Some types leave their inner objects as they were read.
        value = hint.from_json(value)
    if not fits(value, hint):
        yield f"{path}: {value!r:.80} is no {hint}"
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from misfits(one, element(hint), f"{path}/{at}")
    elif hasattr(value, "__dict__") and not isinstance(value, enum.Enum):
        hints = typing.get_type_hints(type(value))
        for name, one in vars(value).items():
            yield from misfits(one, hints.get(name, object), f"{path}/{name}")


def is_union(hint):
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def element(hint):
    """What the members of a list are, where an annotation says it."""
    choices = typing.get_args(hint) if is_union(hint) else [hint]
    lists = [typing.get_args(choice) for choice in choices if typing.get_origin(choice) is list]
    return lists[0][0] if lists and lists[0] else object


def fits(value, hint):
    origin = typing.get_origin(hint)
    if hint in (object, typing.Any) or isinstance(hint, (str, typing.TypeVar)):
        return True
    if is_union(hint):
        return any(fits(value, one) for one in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (list, dict):
        return isinstance(value, origin)
    if hint in PRIMITIVES:
        return isinstance(value, PRIMITIVES[hint]) and (hint is bool or not isinstance(value, bool))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return isinstance(value, hint) or value in [one.value for one in hint]
    return isinstance(value, hint)


def problems(name):
    with open(name, encoding="utf-8") as file:
        read = json.load(file)
    board = Dashboard.from_json(read)
    written = json.loads(JSONEncoder().encode(board))
    yield from lost(read, written)
    yield from misfits(board, Dashboard)


def main(names):
    plugins.register_default_plugins()
    found = [f"{name}: {problem}" for name in names for problem in problems(name)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
