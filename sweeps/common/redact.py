"""Removes users, passwords and tokens from addresses, so that the addresses can be shown."""

from __future__ import annotations

import re

# a password may contain a slash, a user name may not; with http a name alone may be a token
SECRET_PATTERN = re.compile(
    r"//[^/:@\s]*:[^@\s]*@|https?://[^/@\s]+@|[?&]\w*(password|token)=", re.I
)
USER_PATTERN = re.compile(r"(?<=//)([^/@\s]*|[^/:@\s]*:[^@\s]*)@")
QUERY_PATTERN = re.compile(
    r"(?<=[?&])(\w*(?:password|token))=(?!\.\.\.(?:[\s&'\":]|$))[^&\s]*", re.I
)
"""A secret parameter of a URL. The `...` that replaces a secret does not match again."""


def holds_secret(text: str) -> bool:
    """Whether an address in the text may contain a password or a token."""
    return SECRET_PATTERN.search(text) is not None


def redact(text: str) -> str:
    """Returns the text without the users, passwords and tokens in its addresses."""
    return QUERY_PATTERN.sub(r"\1=...", USER_PATTERN.sub("", text))
