"""What a listener is asked about every edit."""

from typing import NamedTuple


class Question(NamedTuple):
    """One 5-point scale: its column in the table, its wording, and what its ends mean."""

    name: str
    title: str
    wording: str
    lowest: str
    highest: str


#: The paper's three (Section 5, Table 2); the wording is ours.
QUESTIONS = (
    Question(
        "transferability",
        "Transferability",
        "How well does the edit match the text?",
        "not at all",
        "perfectly",
    ),
    Question(
        "fidelity",
        "Fidelity",
        "How faithfully does the edit keep what the text does not ask to change, such as the melody and rhythm of the original?",
        "not at all",
        "perfectly",
    ),
    Question(
        "preference",
        "Overall preference",
        "All in all, how much do you like the edit?",
        "not at all",
        "very much",
    ),
)
POINTS = 5
