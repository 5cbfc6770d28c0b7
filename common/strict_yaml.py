"""Read YAML without the guesses of YAML 1.1: ``no`` is text, ``5e-5`` a number, ``012`` text."""

import re
from typing import Any

import yaml

DEEPEST = 50  # a recipe's lists and objects in each other
_PREFIX = "tag:yaml.org,2002:"
# The scalars of YAML 1.2's core schema, but for nan and infinity, which no setting can be.
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    """Keys are strings and unique; nesting depth is limited."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """An opening bracket; the scanner's time grows with the square of how many are open."""
        if self.flow_level >= DEEPEST:
            problem = f"brackets nested more than {DEEPEST} deep"
            raise yaml.MarkedYAMLError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The object of a node."""
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a name must be a text", key.start_mark)
            if key.value in names:
                twice = f"{key.value} stands twice"
                raise yaml.MarkedYAMLError(None, None, twice, node.start_mark)
            names.add(key.value)
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(item, deep=deep) for key, item in node.value}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, word) for tag, word in known if tag in (f"{_PREFIX}null", f"{_PREFIX}merge")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _firsts) in _SCALARS.items():
    _Loader.add_implicit_resolver(_PREFIX + _kind, re.compile(f"^({_pattern})$"), list(_firsts))


def read_yaml(text: str, name: str) -> Any:
    """What the text of the file ``name`` says.

    Raises:
        ValueError: It is no YAML, or a name stands twice in an object: ``name:line: reason``.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark
        line = 1 if mark is None else mark.line + 1
        remedy = "; indent with spaces" if r"'\t'" in str(error.problem) else ""
        raise ValueError(f"{name}:{line}: not YAML: {error.problem}{remedy}") from None
    except RecursionError:
        raise ValueError(f"{name}: not a recipe: lists or objects nested too deeply") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # a tag, !!int, on what is none
        raise ValueError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
