from pathlib import Path

import pytest

from diptych.evaluation.params import EvaluateParams
from diptych.params import ParamsError, load_params
from diptych.promotion.soundness import FIGURES, is_within

EVALUATE = "evaluate: {num_importance_samples: 1, num_mistakes: 1, num_reconstructions: 1, seed: "


def seed_in(folder: Path, seed: int) -> int:
    params = folder / "params.yaml"
    params.write_text(f"{EVALUATE}{seed}}}\n")
    return load_params(params, "evaluate", EvaluateParams).seed


def test_the_largest_seed_is_the_largest_that_the_gate_believes(tmp_path):
    largest = seed_in(tmp_path, 10**15)
    limits = FIGURES["vae"]["vae.binarization_seed"]
    assert is_within(float(largest), limits)
    assert not is_within(float(largest + 1), limits)
    with pytest.raises(ParamsError) as caught:
        seed_in(tmp_path, largest + 1)
    assert str(caught.value) == (
        f"{tmp_path}/params.yaml: evaluate.seed: must be <= 1000000000000000 (got 1000000000000001)"
    )
