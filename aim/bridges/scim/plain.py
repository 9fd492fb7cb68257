"""Documents as nearly all clients send them: in the schema's own spelling, each value of the right type.

    a body of POST or PUT ─► is_plain() ─► yes: it is stored as it is; no: the models decide

Of a plain body the models change nothing, and making them, and JSON of them again, is a third of what a POST
costs. What is plain is read from the models; `core` asks them about everything else, refusals included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import isclass
from typing import Any

from scim2_models import ComplexAttribute, Extension, Mutability, Required
from scim2_models.attributes import ExtensibleStringEnum

from aim.bridges.scim.resources import MODEL
from aim.ports.scim import ScimKind

_Test = Callable[[object], bool]
"""Whether the models would leave a value as it is."""


def is_plain(kind: ScimKind, body: Mapping[str, object]) -> bool:
    """Whether this body, without `schemas`, is valid, and what is to be stored of it."""
    return _REQUIRED[kind] <= body.keys() and _PLAIN[kind](body)


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_truth(value: object) -> bool:
    return type(value) is bool


def _is_one_of(model: type[ExtensibleStringEnum]) -> _Test:
    # Others are taken as well, but those in another case are changed.
    known = frozenset(member.value for member in model)
    return lambda value: type(value) is str and value in known


def _is_complex(model: type[Any]) -> _Test:
    tests = {field.serialization_alias: _test(model, name) for name, field in model.model_fields.items()}

    def is_complex(value: object) -> bool:
        # Nothing is stored of what is empty.
        if type(value) is not dict or not value:
            return False
        return all((test := tests.get(key)) is not None and test(inner) for key, inner in value.items())

    return is_complex


def _is_several(is_one: _Test) -> _Test:
    def is_several(value: object) -> bool:
        if type(value) is not list or not value or not all(map(is_one, value)):
            return False
        return sum(one.get("primary") is True for one in value) <= 1

    return is_several


def _test(model: type[Any], name: str) -> _Test | None:
    """The test of one attribute. None: there are more ways of it than can be told here."""
    if name == "schemas" or model.get_field_annotation(name, Mutability) is not Mutability.read_write:
        return None
    root, is_several = model.get_field_root_type(name), model.get_field_multiplicity(name)
    if isclass(root) and issubclass(root, ComplexAttribute | Extension):
        return _is_several(_is_complex(root)) if is_several else _is_complex(root)
    if is_several or not isclass(root):
        return None
    if issubclass(root, ExtensibleStringEnum):
        return _is_one_of(root)
    return {str: _is_text, bool: _is_truth}.get(root)


def _required(model: type[Any]) -> frozenset[str]:
    return frozenset(
        field.serialization_alias or name
        for name, field in model.model_fields.items()
        if name != "schemas" and model.get_field_annotation(name, Required) is Required.true
    )


_PLAIN = {kind: _is_complex(model) for kind, model in MODEL.items()}
_REQUIRED = {kind: _required(model) for kind, model in MODEL.items()}
