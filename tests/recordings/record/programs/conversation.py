"""What the recorded programs ask, and what the vendors' server answers.

Each text has one word that no other text has, so that a search for the word finds this text only.
"""

from __future__ import annotations

__all__ = [
    "AGENT",
    "ANSWER",
    "ARGUMENTS",
    "ERROR",
    "INSTRUCTIONS",
    "QUESTION",
    "REFUSED_QUESTION",
    "RESULT",
    "SESSION",
    "TOOL",
    "TOOL_DESCRIPTION",
    "USER",
    "WORDS",
]

AGENT = "harbour_clerk"
INSTRUCTIONS = "You answer for the harbour office."
QUESTION = "When does the ferry to Hinderoya leave?"
ANSWER = "The ferry leaves at nineteen from the Kvitsund pier."
TOOL = "timetable"
TOOL_DESCRIPTION = "The departures from a harbour."
ARGUMENTS = {"harbour": "Storholmen"}
RESULT = "Departures at seven and at nineteen on the Lysefjell line."
# The server refuses a request with this question.
REFUSED_QUESTION = "Does the ferry to Hinderoya carry coal?"
ERROR = "The quota of project Vassbotn is used up."
USER = "ingrid"
SESSION = "harbour-desk-4"

WORDS = {
    "question": "Hinderoya",
    "answer": "Kvitsund",
    "arguments": "Storholmen",
    "result": "Lysefjell",
    "error": "Vassbotn",
}
