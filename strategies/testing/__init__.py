"""Checks that strategies, patterns, mask schedules and held values must pass, for use in tests.

Other distributions can use them for their own components. This package may import all of
`strategies`. Besides tests, only `masksweep selftest` imports it.
"""

from masksweep.strategies.testing.case import Case
from masksweep.strategies.testing.held_checks import check_held
from masksweep.strategies.testing.pattern_checks import check_pattern, pattern_checks
from masksweep.strategies.testing.schedule_checks import check_schedule
from masksweep.strategies.testing.strategy_checks import check_strategy, strategy_checks

__all__ = [
    "Case",
    "check_held",
    "check_pattern",
    "check_schedule",
    "check_strategy",
    "pattern_checks",
    "strategy_checks",
]
