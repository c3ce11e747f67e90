"""Addresses as they may be shown: without what lets someone in."""

from __future__ import annotations

import re

# a password may hold a slash, a user's name may not; under http a name alone may be a token
SECRET = re.compile(r"//[^/:@\s]*:[^@\s]*@|https?://[^/@\s]+@|[?&]\w*(password|token)=", re.I)
USER = re.compile(r"(?<=//)([^/@\s]*|[^/:@\s]*:[^@\s]*)@")
QUERY = re.compile(r"(?<=[?&])(\w*(?:password|token))=(?!\.\.\.(?:[\s&'\":]|$))[^&\s]*", re.I)
"""Not what it has been replaced with before."""


def holds_secret(text: str) -> bool:
    """Whether an address in the text may hold a password or a token."""
    return SECRET.search(text) is not None


def shown(text: str) -> str:
    """The text with its addresses as they may be shown: without users, passwords and tokens."""
    return QUERY.sub(r"\1=...", USER.sub("", text))
