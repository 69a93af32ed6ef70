"""params.yaml: the only place where values are written, and the only door they enter by."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from diptych.errors import UserError

_MAX_BYTES = 1_000_000
_MAX_VALUES = 10_000
_MAX_BITS = 1_000  # of a whole number
_MAX_SHOWN = 80  # characters of a value, in an error


class ParamsError(UserError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class Params(BaseModel):
    """Base of every parameter type: frozen, strict, no unknown keys, and no defaults.

    A default would be a second source of a value that params.yaml is the source of.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


P = TypeVar("P", bound=Params)


def load_params(path: Path, section: str, params_type: type[P]) -> P:
    """Read and check one section of a parameter file.

    Args:
        path: The YAML file.
        section: Its top-level key.
        params_type: What the section must hold.

    Returns:
        The frozen parameters.

    Raises:
        ParamsError: naming file, section, key, what was expected and what was found.
    """
    return check_section(str(path), read_yaml(path), section, params_type)


def check_section(where: str, content: Mapping[str, Any], section: str, params_type: type[P]) -> P:
    """Check one section of parameters that have been read.

    Args:
        where: What errors name as the place; a file's path.
        content: All sections.
        section: The key of the one to check.
        params_type: What it must hold.

    Returns:
        The frozen parameters.

    Raises:
        ParamsError: as `load_params`.
    """
    if section not in content:
        raise ParamsError(f"{where}: {section}: this section is missing")
    try:
        return params_type.model_validate(content[section])
    except ValidationError as error:
        raise ParamsError(_one_line(where, section, error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping as DVC reads it: `1e-3` is a number, a key may stand only once.

    Raises:
        ParamsError: when the file cannot be read, is not YAML, is not a mapping, or is larger than
            any file of parameters: over 1 MB, 10,000 values (an alias counts as all that it stands
            for) or whole numbers of over 1,000 bits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    text = _read_text(path)
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise ParamsError(f"{path}:{line} is not valid YAML ({error.problem})") from None
    except Exception as error:  # text that is no YAML may raise anything
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path}: is not valid YAML ({reason})") from None
    _require_moderate(path, content)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ParamsError(f"{path}: must hold sections (got {_shown(content)})")
    return content


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ParamsError(f"{path}: must have at most {_MAX_BYTES} bytes (got more)")
        return content.decode()
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: must be UTF-8 text ({error.reason})") from None


def _require_moderate(path: Path, content: object) -> None:
    """Refuse what a few lines make by aliases or in another base, before it is walked or shown."""
    left: list[tuple[tuple[object, ...], object]] = [((), content)]
    num_values = 0
    while left:
        keys, value = left.pop()
        num_values += 1
        if num_values > _MAX_VALUES:
            raise ParamsError(f"{path}: must hold at most {_MAX_VALUES} values (got more)")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            place = ".".join(map(_plain_key, keys))
            raise ParamsError(f"{path}: {place}: must be a number of at most {_MAX_BITS} bits")
        if isinstance(value, dict):
            left += [((*keys, key), inner) for key, inner in value.items()]
            left += [(keys, key) for key in value]
        elif isinstance(value, list | tuple | set):
            left += [(keys, inner) for inner in value]


def dotted(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections under dotted keys, as `train_cnn.learning_rate`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        inner = isinstance(value, Mapping)
        flat |= dotted(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def set_values(content: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set values of nested sections, in place; the inverse of `dotted`.

    Args:
        content: The sections.
        values: Under dotted keys, which all exist.
    """
    for key, value in values.items():
        *sections, name = key.split(".")
        section = content
        for one in sections:
            section = section[one]
        section[name] = value


def replace_values(text: str, values: Mapping[str, Any]) -> str:
    """Return YAML with values replaced; comments and order stay, in the form that DVC writes.

    Args:
        text: Sections, as `read_yaml` reads them.
        values: Under dotted keys, which all exist.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    content = yaml.load(text)
    set_values(content, values)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


_EXPECTATIONS = {
    "missing": "this key is missing",
    "extra_forbidden": "unknown key",
    "invalid_key": "keys must be text",
    "greater_than": "must be > {gt}",
    "greater_than_equal": "must be >= {ge}",
    "less_than": "must be < {lt}",
    "less_than_equal": "must be <= {le}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "model_type": "must be a section with keys",
    "dict_type": "must be a section with keys",
    "finite_number": "must be a finite number",
}


def _one_line(where: str, section: str, error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    key = ".".join([section, *map(_plain_key, first["loc"])])
    template = _EXPECTATIONS.get(first["type"])
    expectation = first["msg"].removeprefix("Value error, ")
    if template is not None:
        limits = first.get("ctx", {})
        expectation = template.format(**{name: _plain(value) for name, value in limits.items()})
    found = "" if first["type"] == "missing" else f" (got {_shown(first['input'])})"
    more = f"; and {len(others)} more" if others else ""
    return f"{where}: {key}: {expectation}{found}{more}"


def _plain_key(key: object) -> str:
    text = str(key)
    return text if text.isprintable() and len(text) <= _MAX_SHOWN else _shown(key)


def _plain(limit: object) -> object:
    """Return 0 for 0.0: a limit reads the same for counts and for other numbers."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
