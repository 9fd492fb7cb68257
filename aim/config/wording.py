"""Says in plain words what pydantic found wrong. Comes after validation, before a fault is made of it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails

_MAPPING = "must be a mapping of keys to values"
_LIST = "must be a list"
_NUMBER = "must be a whole number"
_TRUTH = "must be true or false"

_WORDS: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text",
    "path_type": "must be a path",
    "int_type": _NUMBER,
    "int_parsing": _NUMBER,
    "int_parsing_size": _NUMBER,
    "int_from_float": _NUMBER,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "recursion_loop": "is nested too deeply",
    "too_short": "must not be empty",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "union_tag_not_found": "is missing: it says which kind of source this is",
    "value_error": "{error}",
}


def in_words(detail: ErrorDetails) -> str:
    """What to say of one error. Never contains the value: that may be a secret."""
    template = _WORDS.get(detail["type"])
    # Pydantic's messages for other types describe what is expected, not what was found.
    return template.format_map(detail.get("ctx", {})) if template else detail["msg"]
