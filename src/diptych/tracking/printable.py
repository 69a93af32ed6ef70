"""Text from a store, in which anybody may have written anything, as a terminal may be sent it."""

import json


def printable(text: str) -> str:
    """Return a text on one line; what a terminal would obey stands there as Python's escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_json(value: object) -> str:
    """Return JSON for people and programs; what a terminal would obey stands there as escapes.

    Args:
        value: Of JSON's types; no number that is not finite.
    """
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    # Whatever else is not printable stands within a string, where an escape means the same.
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )
