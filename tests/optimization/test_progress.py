import math

import pytest
import torch

from diptych.errors import UserError
from diptych.optimization.progress import require_finite


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_training(loss):
    message = rf"^train_vae epoch 3: the loss must be finite \(got {loss}\); lower learning_rate$"
    with pytest.raises(UserError, match=message):
        require_finite(torch.tensor(loss), "train_vae epoch 3")


def test_a_number_does_not():
    require_finite(torch.tensor(3e38), "train_vae epoch 3")
