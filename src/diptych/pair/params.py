"""What the pair is told."""

from typing import Annotated

from pydantic import Field

from diptych.params import Params


class PairParams(Params):
    """Section `pair` of params.yaml."""

    abstention_level: Annotated[float, Field(ge=0, lt=1)]
    """An image whose novelty p-value is at most this is not classified.

    Of images like those of validation at most this share is turned away; 0 turns none away.
    """
