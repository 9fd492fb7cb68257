"""Under which names the keys of a section are accepted, and under which one they are shown.

Made from the models' fields; used when a block is prepared, and wherever a key is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, get_args

from pydantic import SecretStr

if TYPE_CHECKING:
    from aim.config.section import Section

_IN_CAMEL_CASE = frozenset(
    {
        "external_id",
        "power_level",
        "federated_groups",
        "user_provisioner",
        "synced_attributes",
        "attribute_mapping",
    }
)
"""Keys that the documentation spells in camelCase; all other keys of two words have an underscore."""


def shown(key: str) -> str:
    """A key as the documentation spells it."""
    return camel(key) if key in _IN_CAMEL_CASE else key


def camel(key: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), key)


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_is_secret(part) for part in get_args(annotation))


@cache
def spellings(cls: type[Section]) -> Mapping[str, str]:
    """Every accepted spelling → the key as pydantic takes it."""
    spellings: dict[str, str] = {}
    for name, field in cls.model_fields.items():
        home = field.alias or name
        spellings |= {name: home, home: home, camel(home): home}
    for other, _ in cls.MOVES:
        head = other.partition(".")[0]
        spellings.setdefault(head, head)
        spellings.setdefault(camel(head), head)
    for synonym, home in cls.SYNONYMS.items():
        spellings |= {synonym: home, camel(synonym): home}
    return spellings


@cache
def secret_files(cls: type[Section]) -> Mapping[str, str]:
    """Every accepted spelling of a `<key>_file` → the key of the secret."""
    files: dict[str, str] = {}
    for spelling, home in spellings(cls).items():
        field = cls.model_fields.get(home) or next(
            (f for f in cls.model_fields.values() if f.alias == home), None
        )
        if field is not None and _is_secret(field.annotation):
            files |= {f"{spelling}_file": home, camel(f"{spelling}_file"): home}
    return files
