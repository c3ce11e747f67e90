"""Checks for strategies, patterns and held values, ours and those of other distributions.

It may import all of `strategies`. Nothing else of Masksweep imports it; tests do.
"""

from masksweep.strategies.testing.case import Case
from masksweep.strategies.testing.held_checks import check_held
from masksweep.strategies.testing.pattern_checks import check_pattern, pattern_checks
from masksweep.strategies.testing.strategy_checks import check_strategy, strategy_checks

__all__ = [
    "Case",
    "check_held",
    "check_pattern",
    "check_strategy",
    "pattern_checks",
    "strategy_checks",
]
