"""The rule that rejects inattentive listeners by the hidden controls."""

from collections.abc import Mapping

from apa_lightning.listening_test.key import Item

FAITHFUL = 4
LAPSES = 0.2
SPREAD = 1.0

RULE = (
    f"A listener is rejected who (1) rates the fidelity of the hidden copy of the source below {FAITHFUL} in more than "
    f"{LAPSES:.0%} of the sets, (2) rates the two appearances of a repeated edit more than {SPREAD:g} point apart on "
    "average, (3) gives the same number everywhere, or (4) did not rate the fidelity of any hidden copy."
)


def why_rejected(ratings: Mapping[str, Mapping[str, int]], items: Mapping[str, Item]) -> str:
    """The first part of :data:`RULE` that a listener breaks, in words; empty for a listener who counts.

    Args:
        ratings: Ratings by item token and question.
        items: All items of the test by token.
    """
    hidden = [
        rated["fidelity"]
        for token, rated in ratings.items()
        if items[token].control == "source" and "fidelity" in rated
    ]
    if not hidden:
        return "did not rate the fidelity of any hidden copy of the source"
    lapses = sum(value < FAITHFUL for value in hidden)
    if lapses > LAPSES * len(hidden):
        return f"rated the fidelity of the hidden copy of the source below {FAITHFUL} in {lapses} of {len(hidden)} sets"
    differences = _differences(ratings, items)
    if differences and (spread := sum(differences) / len(differences)) > SPREAD:
        return f"rated the two appearances of an edit {spread:.1f} points apart on average"
    if len({value for rated in ratings.values() for value in rated.values()}) == 1:
        return "gave the same number everywhere"
    return ""


def _differences(ratings: Mapping[str, Mapping[str, int]], items: Mapping[str, Item]) -> list[int]:
    """Distances between the ratings of each repeated edit and of its first appearance, per question rated twice."""
    tokens = {item: token for token, item in items.items()}
    found = []
    for token, again in ratings.items():
        if items[token].control == "repeat":
            first = ratings.get(tokens[items[token]._replace(control="")], {})
            found += [abs(again[question] - first[question]) for question in again.keys() & first.keys()]
    return found
