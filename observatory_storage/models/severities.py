"""The severities of log records: OpenTelemetry's numbers, and their names."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "SEVERITIES", "names_from"]

# The lowest severity number of each level of OpenTelemetry. A level has four numbers.
LEVELS: Final = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
# The names of OpenTelemetry (DEBUG, DEBUG2, ...), and those of other sources as its log data model
# maps them: syslog, Windows, Python, java.util.logging, Zap, .NET. CRITICAL is 18 for syslog; here
# it is that of Python, Windows and .NET. An index contains these names: a change needs a migration.
SEVERITIES: Final = {
    **{
        f"{level}{step + 1 if step else ''}": number + step
        for level, number in LEVELS.items()
        for step in range(4)
    },
    "FINEST": 1,
    "FINER": 2,
    "VERBOSE": 5,
    "FINE": 5,
    "CONFIG": 6,
    "INFORMATION": 9,
    "INFORMATIONAL": 9,
    "NOTICE": 10,
    "WARNING": 13,
    "ERR": 17,
    "SEVERE": 17,
    "DPANIC": 18,
    "PANIC": 19,
    "ALERT": 19,
    "CRIT": 21,
    "CRITICAL": 21,
    "EMERG": 21,
    "EMERGENCY": 21,
}


def names_from(least: int) -> list[str]:
    """The names of this severity number and of all greater ones, sorted."""
    return sorted(name for name, number in SEVERITIES.items() if number >= least)
