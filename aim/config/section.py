"""Base of all models of the configuration: forgiving in spelling, strict in everything else.

A block of the file (`document`) comes in, is prepared (`prepare`) and validated. What is wrong comes out as
one ValidationError whose errors carry line and path; none of them carries a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from aim.config.document import Block, Items, without
from aim.config.faults import Fault, Place
from aim.config.keys import shown
from aim.config.prepare import Preparation
from aim.config.wording import in_words

_PLACED = "aim_fault"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What validation needs to know beside the file's text: the directory that relative paths start from."""

    directory: Path


def directory_of(info: ValidationInfo) -> Path:
    """Where relative paths start: the directory of the file; for models made in code, where we are."""
    return info.context.directory if isinstance(info.context, Surroundings) else Path()


class Section(BaseModel):
    """A mapping of the file. Frozen; unknown keys are errors."""

    model_config = ConfigDict(
        defer_build=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    SYNONYMS: ClassVar[Mapping[str, str]] = {}
    """Further names of keys: synonym → key."""
    MOVES: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Keys that may also stand elsewhere: (dotted path of the other place, dotted path of the home)."""

    @classmethod
    def cross_check(cls, block: Block) -> Iterable[Fault]:  # noqa: ARG003 - a hook: this one finds nothing
        """What is wrong between keys, found on the raw values so that it is told beside everything else.

        Keys of `block` itself are in their one spelling; blocks below it are as in the file.
        """
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        raw = data if isinstance(data, Block) else Block(Place(0), data)
        preparation = Preparation(cls, raw, directory_of(info))
        block = preparation.run()
        faults = preparation.faults
        faults += without(cls.cross_check(block), faults)
        errors = [_placed(fault) for fault in faults]
        result = None
        try:
            result = handler(block)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            errors += _translated(details, block, faults, preparation.meant)
        if result is None or errors:
            raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)
        return result


def faults_of(error: ValidationError) -> Iterator[Fault]:
    """The faults that a failed validation of a Section carries."""
    for detail in error.errors(include_url=False, include_input=False):
        context = detail.get("ctx", {})
        yield Fault(context.get("line", 1), context.get("path", ""), detail["msg"])


def _placed(fault: Fault, loc: tuple[int | str, ...] = ()) -> InitErrorDetails:
    context = {"text": fault.text, "line": fault.line, "path": fault.path}
    return InitErrorDetails(type=PydanticCustomError(_PLACED, "{text}", context), loc=loc, input=None)


def _translated(
    details: Iterable[ErrorDetails], block: Block, reported: list[Fault], meant: set[str]
) -> Iterator[InitErrorDetails]:
    """Pydantic's errors with our places and words, without those that only follow from what is reported."""
    paths = {fault.path for fault in reported}
    for detail in details:
        loc = detail["loc"]
        if detail["type"] == _PLACED:
            context = detail["ctx"]
            yield _placed(Fault(context["line"], context["path"], context["text"]), loc)
            continue
        if detail["type"] == "missing" and loc[-1:] and loc[-1] in meant:
            continue
        place = _place_of(block, loc)
        text = in_words(detail)
        if detail["type"].startswith("union_tag"):
            place = _place_of(block, (*loc, "type"))
        if place.path not in paths:
            yield _placed(Fault.at(place, text), loc)


def _place_of(value: object, loc: Iterable[int | str]) -> Place:
    """Where in the file the value at pydantic's location `loc`, seen from `value`, stands."""
    place = value.place if isinstance(value, Block) else Place(0)
    for step in loc:
        if isinstance(value, Items) and isinstance(step, int) and step < len(value):
            place, value = value.places[step], value[step]
        elif isinstance(value, Block) and step in value:
            key = str(step)
            place, value = value.place_of(key), value[key]
        elif isinstance(step, str):
            place = place.at_key(shown(step))
    return place
