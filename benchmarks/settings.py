"""What one measurement is told: parameters, data, seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from diptych.cnn.params import CnnTrainingParams
from diptych.errors import UserError
from diptych.images.arrays import DatasetDescription, load_description
from diptych.optimization.compute import ComputeParams
from diptych.pair.params import PairParams
from diptych.params import check_section
from diptych.presets import load_preset
from diptych.vae.params import VaeTrainingParams

ROOT = Path(__file__).parents[1]
"""The folder that holds benchmarks/, src/, presets/ and params.yaml: the project or a bundle."""

PRESETS = ROOT / "presets"


class UnavailableError(UserError):
    """A case cannot be measured here: data, packages or a preset are missing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that a measurement depends on, save code and machine.

    Attributes:
        content: All sections of params.yaml, with the preset applied.
        processed: Folder of the data set.
        seed: Of the training, of the test set's binarisation and of the noise; number of a
            repetition of what has no seed.
        num_importance_samples: Per image, of an autoencoder's likelihood.
        others: Folders of other data sets whose images have the same shape.
    """

    content: dict[str, Any]
    processed: Path
    seed: int
    num_importance_samples: int
    others: tuple[Path, ...] = ()

    def compute(self) -> ComputeParams:
        """Return section `compute`."""
        return check_section("params", self.content, "compute", ComputeParams)

    def cnn(self) -> CnnTrainingParams:
        """Return section `train_cnn` with this setting's seed."""
        params = check_section("params", self.content, "train_cnn", CnnTrainingParams)
        return params.model_copy(update={"seed": self.seed})

    def vae(self) -> VaeTrainingParams:
        """Return section `train_vae` with this setting's seed."""
        params = check_section("params", self.content, "train_vae", VaeTrainingParams)
        return params.model_copy(update={"seed": self.seed})

    def abstention_level(self) -> float:
        """Return the p-value at which a pair abstains."""
        return check_section("params", self.content, "pair", PairParams).abstention_level


def make_setting(case: Case, seed: int, folders: Sequence[Path], presets: Path) -> Setting:
    """Bring a case's parameters and data together.

    Args:
        case: The case.
        seed: The seed.
        folders: Processed data sets; the first with the preset's images is taken.
        presets: The folder of presets, beside params.yaml.

    Raises:
        UnavailableError: when no folder holds the data set.
        UserError: when there is no such preset, or a data set's description is damaged.
    """
    content = load_preset(presets, case.preset)
    name = content["dataset"]["name"]
    described = {folder.resolve(): load_description(folder) for folder in folders}
    for folder, own in described.items():
        if own.name == name:
            others = tuple(
                other
                for other, one in described.items()
                if one.name != name and one.image_shape == own.image_shape
            )
            return Setting(content, folder, seed, case.num_importance_samples, others)
    raise UnavailableError(f"needs {name}, processed, among the folders of --data")


def description_of(setting: Setting) -> DatasetDescription:
    """Return what the data set says about itself."""
    return load_description(setting.processed)
