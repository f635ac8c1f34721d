"""Recipes as YAML: strict reading. No aliases, no duplicate keys, bounded in size and depth."""

from collections.abc import Hashable
from typing import Any

import yaml

LONGEST = 1_000_000  # characters; a recipe has some three thousand


class _Loader(yaml.SafeLoader):
    """YAML's plain types alone, without aliases, which a short text can expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(
                None, None, f"found the alias or anchor {event.anchor!r}; a recipe writes each value out",
                event.start_mark,
            )  # fmt: skip
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"found the key {shortened(name)}; expected the name of a field", key.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found {shortened(name)} twice; expected each field once", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_tree(text: str) -> dict[str, Any]:
    """The tree of a YAML text.

    Raises:
        ValueError: for text that is no YAML tree, or none that a recipe could be.
    """
    if len(text) > LONGEST:
        raise ValueError(f"this text has {len(text):,} characters; expected a recipe, of at most {LONGEST:,}.")
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML that a recipe can be: {error}") from None
    except RecursionError:
        raise ValueError("this YAML is nested too deeply for a recipe.") from None
    except ValueError as error:  # a number that Python does not convert
        raise ValueError(f"this YAML holds a value that cannot be read: {shortened(str(error))}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"a recipe is a tree of fields, not {type(tree).__name__}; `relatum show demo` prints one.")
    return tree


def write_tree(tree: dict[str, Any]) -> str:
    """The tree as YAML, in the order of its fields."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def shortened(value: Any) -> str:
    """A value as an error shows it: its beginning, however large it is."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
