"""What this project is compared with: the article's own program, and the loop everyone writes.

Both programs run in processes of their own, the article's in an environment of its own; importing
this package needs neither torch nor TensorFlow.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.settings import Setting


def run_peers(setting: "Setting") -> Mapping[str, float]:
    """Time both programs and this project's classifier once, one after the other.

    Args:
        setting: Parameters of this project's classifier, the data, and the seed of all three.

    Returns:
        `keras_`, `stock_` and `diptych_` `seconds` of training and `accuracy` on the test set, and
        how many times as long as this project the others took.

    Raises:
        UnavailableError: when the article's environment is not there, or the device is no CPU.
        PeerError: when a program fails.
    """
    from benchmarks.peers.rounds import measure_round

    return measure_round(setting)
