"""Reads YAML into plain text, lists and mappings that know their lines, with `${ENV}` filled in.

Text of a file comes in; a `Document` goes out, for `Config` to validate. Scalars stay text (an empty one is
None): the models say what is a number or a truth value, so that `name: 2024`, `register_users: no` and a
password of digits mean what they look like. Nothing that is reported from here quotes a value, since a
value may be a secret.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from aim.config.faults import Fault, Place, failure

_CORE_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_CORE_TAG + kind for kind in ("str", "int", "float", "bool", "timestamp", "value"))
_CONTAINERS = frozenset({_CORE_TAG + "map", _CORE_TAG + "seq"})
_NULL = _CORE_TAG + "null"
_MERGE = _CORE_TAG + "merge"

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}|\$\{")
# Of what the parser quotes, a token or one character is safe to repeat; the rest is text of the file.
_SAFE = r"<(?:(?:block|document|stream)[a-z ]+|scalar|alias|anchor|tag|directive)>|."
_QUOTED = re.compile(rf""" ?(?:'(?!(?:{_SAFE})')[^']*'|"(?!(?:{_SAFE})")[^"]*")""")


class Block(dict[str, object]):
    """A mapping of the file: its own place, and the place of each key."""

    def __init__(self, place: Place, values: Mapping[str, object] | None = None) -> None:
        super().__init__(values or {})
        self.place = place
        self.places: dict[str, Place] = {}

    def place_of(self, key: str) -> Place:
        """Where `key` stands; where it would belong if it is missing."""
        return self.places.get(key) or self.place.at_key(key)

    def put(self, key: str, value: object, place: Place) -> None:
        self[key] = value
        self.places[key] = place

    def copy(self) -> Block:
        twin = Block(self.place, self)
        twin.places = dict(self.places)
        return twin


class Items(list[object]):
    """A list of the file: its own place, and the place of each item."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []


@dataclass(frozen=True, slots=True)
class Document:
    """A file that is well-formed YAML with a mapping at the top; `faults` holds what else is wrong."""

    root: Block
    faults: tuple[Fault, ...]


def parse(text: str, name: str, environ: Mapping[str, str]) -> Document:
    """Parses `text`; `name` is what errors call the file.

    Raises ConfigError if it is no YAML, empty, or anything but a mapping.
    """
    node = _compose(text, name)
    if node is None:
        raise failure(name, [Fault(1, "", "the file is empty")])
    if not isinstance(node, MappingNode):
        raise failure(name, [Fault(1, "", "the file must be a mapping of keys to values at its top level")])
    builder = _Builder(environ)
    root = builder.mapping(node, Place(1))
    return Document(root, tuple(builder.faults))


def _compose(text: str, name: str) -> Node | None:
    """The tree of YAML nodes, or None for an empty file. Raises ConfigError."""
    try:
        with warnings.catch_warnings():
            # YAML 1.2, 3.2.2.2: an anchor may be defined again.
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise failure(name, [Fault(line, "", f"not valid YAML: {_QUOTED.sub('', said)}")]) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise failure(
            name, [Fault(line, "", "not valid YAML: a character that YAML does not allow")]
        ) from None
    except (YAMLError, ValueError):
        raise failure(name, [Fault(1, "", "not valid YAML")]) from None
    return node


class _Builder:
    """Turns nodes into blocks, items and text; collects faults instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self._environ = environ
        self._open: set[int] = set()

    def mapping(self, node: MappingNode, place: Place) -> Block:
        block = Block(place)
        self._open.add(id(node))
        own = [(key, value) for key, value in node.value if key.tag != _MERGE]
        for key_node, value_node in own:
            self._pair(block, key_node, value_node)
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(block, value_node, place.at_key("<<", key_node.start_mark.line + 1))
        self._open.discard(id(node))
        return block

    def _pair(self, block: Block, key_node: Node, value_node: Node) -> None:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            text = "a key must be plain text (is a value missing its quotes?)"
            self.faults.append(Fault.at(Place(line, block.place.path), text))
            return
        key = str(key_node.value)
        place = block.place.at_key(key, line)
        if key in block:
            text = f"is given twice, first in line {block.places[key].line}"
            self.faults.append(Fault.at(place, text))
            return
        block.put(key, self._value(value_node, place), place)

    def _merge(self, block: Block, node: Node, place: Place) -> None:
        """Adds what `<<` names; keys of the mapping itself win (YAML merge key language-independent type)."""
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if not isinstance(source, MappingNode) or id(source) in self._open:
                self.faults.append(Fault.at(place, "must name a mapping, or a list of mappings"))
                return
            merged = self.mapping(source, block.place)
            for key, value in merged.items():
                if key not in block:
                    block.put(key, value, merged.places[key])

    def _value(self, node: Node, place: Place) -> object:
        if node.tag not in _SCALARS | _CONTAINERS | {_NULL}:
            self.faults.append(Fault.at(place, "has a YAML tag; tags are not supported"))
            return ""
        if id(node) in self._open:
            self.faults.append(Fault.at(place, "contains itself"))
            return ""
        if isinstance(node, MappingNode):
            return self.mapping(node, place)
        if isinstance(node, SequenceNode):
            return self._sequence(node, place)
        return None if node.tag == _NULL else self._expand(str(node.value), place)

    def _sequence(self, node: SequenceNode, place: Place) -> Items:
        items = Items(place)
        self._open.add(id(node))
        for index, item in enumerate(node.value):
            # An alias is the node it names, which stands further up.
            item_place = place.at_item(index, max(place.line, item.start_mark.line + 1))
            items.append(self._value(item, item_place))
            items.places.append(item_place)
        self._open.discard(id(node))
        return items

    def _expand(self, text: str, place: Place) -> str:
        """`text` with each `${NAME}` replaced; `$${` stands for the two characters `${`."""

        def replace(match: re.Match[str]) -> str:
            name = match["name"]
            if match[0] == "$${":
                return "${"
            if name is None:
                self.faults.append(
                    Fault.at(place, "has a ${ without a name and }; write $${ for a literal ${")
                )
            elif name not in self._environ:
                self.faults.append(Fault.at(place, f"the environment variable {name} is not set"))
            else:
                return self._environ[name]
            return ""

        return _REFERENCE.sub(replace, text)


def without(faults: Iterable[Fault], reported: Iterable[Fault]) -> list[Fault]:
    """`faults` but those at a place where something is `reported` already: they would only follow from it."""
    paths = {fault.path for fault in reported}
    return [fault for fault in faults if fault.path not in paths]
