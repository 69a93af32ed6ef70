"""A run's parameter file: every value as it was, and no credentials."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diptych.params import read_yaml
from diptych.tracking.params_file import params_text

ROOT = Path(__file__).parents[2]


def test_params_are_kept_as_they_were_written() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert params_text(text, read_yaml(ROOT / "params.yaml")) == text


keys = st.text(max_size=50)  # YAML's own limit is 1,024 characters, as they are written
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.text().filter(lambda text: "://" not in text),
    st.floats(allow_nan=False, allow_infinity=False),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys, st.dictionaries(keys, scalars | st.lists(scalars))))
def test_without_their_credentials_params_keep_every_other_value(
    tmp_path: Path, content: dict[str, dict[str, object]]
) -> None:
    address = "https://me:hunter2@host/x?token=hunter2"
    path = tmp_path / "params.yaml"
    path.write_text(params_text(f"# {address}", {**content, "a": {"sources": [address]}}))
    assert read_yaml(path) == {**content, "a": {"sources": ["https://***@host/x?***"]}}
