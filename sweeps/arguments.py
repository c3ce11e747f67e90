"""The arguments of a command, with what is wrong in them said in one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from strategies.base import Invalid


class Parser(argparse.ArgumentParser):
    """Of a command as `masksweep audit`. Raises `Invalid` where argparse would leave."""

    def error(self, message: str) -> NoReturn:
        raise Invalid(self.prog.rpartition(" ")[2], "", f"{message}; see {self.prog} --help")
