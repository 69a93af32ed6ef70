"""Credentials that stand in addresses, taken out before anything is shown or stored."""

import re

_USER_AND_PASSWORD = re.compile(r"://\S*@")
_QUERY = re.compile(r"""(://[^\s"'?]*)\?[^\s"']+""")


def redacted(text: str) -> str:
    """Return the text with the user, password and query of every address in it masked."""
    return _QUERY.sub(r"\1?***", _USER_AND_PASSWORD.sub("://***@", text))
