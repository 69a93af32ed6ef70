import pytest

from diptych.tracking.secrets import redacted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:hunter2@host/path", "https://***@host/path"),
        ("postgresql://me:hun/ter@2@host/db", "postgresql://***@host/db"),
        ("https://host/x?token=hunter2&a=b then", "https://host/x?*** then"),
        ('["mirrors", "https://me:pw@host/"]', '["mirrors", "https://***@host/"]'),
        ("why? me@example.org", "why? me@example.org"),
        ("https://host/path", "https://host/path"),
    ],
)
def test_credentials_are_masked_and_nothing_else(text: str, expected: str) -> None:
    assert redacted(text) == expected
