"""The arguments of a command, with what is wrong in them said in one line."""

from __future__ import annotations

import argparse
from typing import IO, Any, NoReturn

from masksweep.strategies.base import Invalid


class Parser(argparse.ArgumentParser):
    """Of a command as `masksweep audit`. Raises `Invalid` where argparse would leave."""

    def error(self, message: str) -> NoReturn:
        raise Invalid(self.prog.rpartition(" ")[2], "", f"{message}; see {self.prog} --help")

    def print_help(self, file: IO[str] | Any = None) -> None:
        """Print it; argparse itself would not say that nobody reads it."""
        print(self.format_help(), end="", file=file)
