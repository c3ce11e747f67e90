"""A parser for the arguments of a command. Each error is one line."""

from __future__ import annotations

import argparse
from typing import IO, Any, NoReturn

from masksweep.strategies.errors import Invalid


class Parser(argparse.ArgumentParser):
    """The parser of a command, such as `masksweep audit`. It raises `Invalid` and does not exit."""

    def error(self, message: str) -> NoReturn:
        raise Invalid(self.prog.rpartition(" ")[2], "", f"{message}; see {self.prog} --help")

    def print_help(self, file: IO[str] | Any = None) -> None:
        """Prints the help. Unlike argparse, it does not hide the error of a closed output."""
        print(self.format_help(), end="", file=file)
