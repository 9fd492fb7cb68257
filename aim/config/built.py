"""What the configuration may say that this version does not do yet. Comes after loading; gives the warning.

When a feature is built, its line goes; nothing else needs to change here.
"""

from __future__ import annotations

from collections.abc import Iterator

from aim.config.keys import shown
from aim.config.root import Config
from aim.config.section import Section

NOT_BUILT = (
    "source.attributes.avatar",
    "group_power_level",
    "telemetry",
)
"""Keys, and `key: value` where one value of several is meant, spelled as the documentation does."""


def warnings_for(config: Config, name: str) -> tuple[str, ...]:
    """One warning that names everything given in the file `name` that has no effect yet; none if all has."""
    given = set(_given(config))
    idle = [entry for entry in NOT_BUILT if entry in given]
    if not idle:
        return ()
    return (f"{name}: accepted, but not built yet and without effect: {', '.join(idle)}",)


def _given(section: Section, prefix: str = "") -> Iterator[str]:
    """Every key that is set, and `key: value` for those that hold text; subspaces count as spaces."""
    for name in section.model_fields_set:
        value = getattr(section, name)
        path = prefix + shown(name)
        yield path
        if isinstance(value, str):
            yield f"{path}: {value}"
        elif isinstance(value, Section):
            yield from _given(value, f"{path}.")
        elif isinstance(value, tuple):
            inner = prefix if name == "subspaces" else f"{path}[]."
            for item in value:
                if isinstance(item, Section):
                    yield from _given(item, inner)
