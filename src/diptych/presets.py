"""Presets: small, named sets of params, each lying over the one called `default`."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import write_atomically
from diptych.params import Params, check_section, dotted, read_yaml, replace_values, set_values

DEFAULT = "default"
CUSTOM = "custom"
"""What params are called that match no preset."""


class PresetError(UserError):
    """A preset is unknown, or sets what it may not set."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that a preset has changed, under its dotted key."""

    key: str
    old: Any
    new: Any


def preset_purposes(folder: Path) -> dict[str, str]:
    """Return what each preset is for, by its name: the comment in its first line.

    Args:
        folder: Holds `<name>.yaml` for every preset.

    Returns:
        The default first, then the others by name.
    """
    return {name: _purpose(_file(folder, name)) for name in _names(folder)}


def load_preset(folder: Path, name: str, params: Path | None = None) -> dict[str, Any]:
    """Return the whole content of a parameter file as a preset would make it.

    Args:
        folder: Holds `<name>.yaml` for every preset.
        name: The preset's.
        params: Where the keys come from that no preset changes; params.yaml beside the folder
            if None.

    Returns:
        All sections, checked against their types.

    Raises:
        PresetError: when there is no such preset, or it sets a key that `default` or the
            parameter file does not have.
        ParamsError: when a file cannot be read or the outcome is not valid.
    """
    params = folder.parent / "params.yaml" if params is None else params
    if name not in (names := _names(folder)):
        raise PresetError(f"{folder}: a preset must be one of {', '.join(names)} (got {name!r})")
    content, values = read_yaml(params), _over(_default(folder), folder, name)
    missing = sorted(values.keys() - dotted(content).keys())
    if missing:
        raise PresetError(
            f"{params}: {missing[0]}: this key is missing ({_file(folder, DEFAULT)} has it)"
        )
    set_values(content, values)
    for section, params_type in section_types().items():
        check_section(f"{params} with {_file(folder, name)}", content, section, params_type)
    return content


def apply_preset(params: Path, folder: Path, name: str) -> list[Change]:
    """Set a parameter file to a preset; what no preset changes stays, and so do all comments.

    The file is replaced as a whole, and only by valid content.

    Args:
        params: The parameter file.
        folder: Holds `<name>.yaml` for every preset.
        name: The preset's.

    Returns:
        What has changed, in the file's order.

    Raises:
        PresetError: as `load_preset`.
        ParamsError: as `load_preset`.
    """
    old, new = dotted(read_yaml(params)), dotted(load_preset(folder, name, params))
    changes = [Change(key, old[key], new[key]) for key in old if old[key] != new[key]]
    if changes:
        text = params.read_text(encoding="utf-8")
        values = {change.key: change.new for change in changes}
        write_atomically(params, replace_values(text, values).encode())
    return changes


def matching_preset(content: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the preset that params are set to, or `custom`.

    It is read off the values, so it cannot be out of date. Keys that no preset changes, such as
    seeds, do not count.

    Args:
        content: A parameter file's sections, or their values under dotted keys.
        folder: Holds `<name>.yaml` for every preset.

    Raises:
        PresetError: when the folder holds no presets, or one sets a key that `default` has not.
        ParamsError: when a preset cannot be read.
    """
    found = dotted(content).items()
    names, default = _names(folder), _default(folder)
    for name in names:
        if _over(default, folder, name).items() <= found:
            return name
    return CUSTOM


def preset_tags(content: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return a run's tag `diptych.preset`, or none where the presets cannot be read.

    Args:
        content: A parameter file's sections, or their values under dotted keys.
        folder: Holds `<name>.yaml` for every preset; may be missing.
    """
    with suppress(UserError):
        return {"diptych.preset": matching_preset(content, folder)}
    return {}


def section_types() -> Mapping[str, type[Params]]:
    """Return the type of every section of params.yaml."""
    # torch, which some of them import, takes seconds; the name of a preset needs none of it.
    from diptych.cnn.params import CnnTrainingParams
    from diptych.evaluation.params import EvaluateParams, GenerateSamplesParams
    from diptych.images.params import DatasetParams, PreprocessParams
    from diptych.optimization.compute import ComputeParams
    from diptych.optimization.params import CheckpointParams
    from diptych.pair.params import PairParams
    from diptych.promotion.params import PromotionParams
    from diptych.vae.params import VaeTrainingParams

    return {
        "dataset": DatasetParams,
        "preprocess": PreprocessParams,
        "compute": ComputeParams,
        "train_cnn": CnnTrainingParams,
        "train_vae": VaeTrainingParams,
        "checkpoints": CheckpointParams,
        "evaluate": EvaluateParams,
        "pair": PairParams,
        "generate_samples": GenerateSamplesParams,
        "promotion": PromotionParams,
    }


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.yaml"


def _names(folder: Path) -> list[str]:
    names = {path.stem for path in folder.glob("*.yaml")}
    if DEFAULT not in names:
        raise PresetError(f"{folder}: must hold presets, {DEFAULT}.yaml among them")
    return [DEFAULT, *sorted(names - {DEFAULT})]


def _purpose(file: Path) -> str:
    first_line = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return first_line.removeprefix("#").strip() if first_line.startswith("#") else ""


def _default(folder: Path) -> dict[str, Any]:
    return dotted(read_yaml(_file(folder, DEFAULT)))


def _over(default: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Return the default's values with the preset's over them, under dotted keys."""
    own = dotted(read_yaml(_file(folder, name)))
    # Another preset, applied later, could not take back what the default does not name.
    strangers = [key for key in own if key not in default]
    if strangers:
        raise PresetError(
            f"{_file(folder, name)}: {strangers[0]}: must be in {_file(folder, DEFAULT)} too"
        )
    return {**default, **own}
