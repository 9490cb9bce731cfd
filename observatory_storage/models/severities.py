"""The severities of log records: OpenTelemetry's numbers, and the names that stand for them."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "SEVERITIES", "names_from"]

# The least severity number of each level of OpenTelemetry, which has four numbers.
LEVELS: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
# OpenTelemetry's names (DEBUG, DEBUG2, ...), and those that appendix B of its log data model maps
# for syslog, Windows, Zap, java.util.logging and .NET. There, CRITICAL is 18 of syslog and 21 of
# .NET. Here it is 21, as in the Python SDK. An index contains the names from ERROR up, so a change
# of those needs a migration.
SEVERITIES: Final = {
    **{
        f"{level}{step + 1 if step else ''}": number + step
        for level, number in LEVELS.items()
        for step in range(4)
    },
    "FINEST": 1,
    "FINER": 5,
    "VERBOSE": 5,
    "FINE": 6,
    "CONFIG": 7,
    "INFORMATION": 9,
    "INFORMATIONAL": 9,
    "NOTICE": 10,
    "WARNING": 13,
    "ERR": 17,
    "SEVERE": 17,
    "DPANIC": 18,
    "PANIC": 19,
    "ALERT": 19,
    "CRIT": 18,
    "CRITICAL": 21,
    "EMERG": 21,
    "EMERGENCY": 21,
}


def names_from(least: int) -> list[str]:
    """The names of this severity number and of greater ones, in order."""
    return sorted(name for name, number in SEVERITIES.items() if number >= least)
