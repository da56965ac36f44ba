"""The questions that a listener answers about every edit."""

from typing import NamedTuple


class Question(NamedTuple):
    """One 5-point scale.

    Attributes:
        name: Column in the table.
        title: Short title on the page.
        wording: The question.
        lowest: Meaning of the lowest point.
        highest: Meaning of the highest point.
    """

    name: str
    title: str
    wording: str
    lowest: str
    highest: str


#: The three questions of the paper (Section 5, Table 2), in our words.
QUESTIONS = (
    Question("transferability", "Transferability", "How well does the edit match the text?", "not at all", "perfectly"),
    Question(
        "fidelity",
        "Fidelity",
        "How faithfully does the edit keep what the text does not ask to change, such as the melody and rhythm of the original?",
        "not at all",
        "perfectly",
    ),
    Question(
        "preference", "Overall preference", "All in all, how much do you like the edit?", "not at all", "very much"
    ),
)
POINTS = 5
