"""params.yaml: the only place where values are written, and the only door they enter by."""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from diptych.errors import UserError


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
    content = read_yaml(path)
    if section not in content:
        raise ParamsError(f"{path}: {section}: this section is missing")
    try:
        return params_type.model_validate(content[section])
    except ValidationError as error:
        raise ParamsError(_one_line(path, section, error)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping as DVC reads it: `1e-3` is a number, a key may stand only once.

    Raises:
        ParamsError: when the file cannot be read, is not YAML or is not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: must be UTF-8 text ({error.reason})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise ParamsError(f"{path}:{line} is not valid YAML ({error.problem})") from None
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(f"{path}: is not valid YAML ({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ParamsError(f"{path}: must hold sections (got {_shown(content)})")
    return content


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


def _one_line(path: Path, section: str, error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    key = ".".join([section, *map(str, first["loc"])])
    template = _EXPECTATIONS.get(first["type"])
    expectation = first["msg"].removeprefix("Value error, ")
    if template is not None:
        limits = first.get("ctx", {})
        expectation = template.format(**{name: _plain(value) for name, value in limits.items()})
    found = "" if first["type"] == "missing" else f" (got {_shown(first['input'])})"
    more = f"; and {len(others)} more" if others else ""
    return f"{path}: {key}: {expectation}{found}{more}"


def _plain(limit: object) -> object:
    """Return 0 for 0.0: a limit reads the same for counts and for other numbers."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
