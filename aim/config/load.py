"""From a file to a `Config`. Reads, parses, validates, and reports all that is wrong at once.

Entry of this package: `cli` and `app` call it and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from aim.config.built import warnings_for
from aim.config.document import parse, without
from aim.config.faults import Fault, failure
from aim.config.root import Config
from aim.config.section import Surroundings, faults_of
from aim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what a person should know about it."""

    config: Config
    warnings: tuple[str, ...] = ()


def load_config(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Loads the YAML file at `path`, filling in `${NAME}` from `environ` and secrets from their files.

    Raises ConfigError with a line for each thing that is wrong: file, line, key path, and what.
    """
    text = _read(path)
    try:
        return _load(text, path, environ)
    except RecursionError:
        raise failure(str(path), [Fault(1, "", "nested too deeply")]) from None


def _load(text: str, path: Path, environ: Mapping[str, str]) -> Loaded:
    name = str(path)
    document = parse(text, name, environ)
    faults = list(document.faults)
    config = None
    try:
        config = Config.model_validate(document.root, context=Surroundings(path.parent))
    except ValidationError as error:
        faults += without(faults_of(error), document.faults)
    if config is None or faults:
        # Without its cause: pydantic's error holds values, and those may be secrets.
        raise failure(name, faults) from None
    return Loaded(config, warnings_for(config, name))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        remedy = "Name another file with --config or $AIM_CONFIG, or start from config.example.yaml."
        raise ConfigError(f"{path}: there is no such file", remedy) from None
    except OSError as error:
        remedy = "Check that it is a file, and that the user who runs aim may read it."
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", remedy) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise failure(str(path), [Fault(line, "", "the file is not UTF-8 text")]) from None
