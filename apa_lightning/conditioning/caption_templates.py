"""The captions that AudioSet labels are put into, joined by ", " (paper, section 4.1)."""

TEMPLATES = (
    "a recording of a {}",
    "a recording of {}",
    "the sound of {}",
    "the sound of a {}",
    "a clip of {}",
    "an audio clip with {}",
    "a short excerpt of {}",
    "an excerpt with {}",
    "a performance with {}",
    "a live recording of {}",
    "a studio recording of {}",
    "an audio track featuring {}",
    "a sound sample of {}",
    "this is {}",
    "one can hear {}",
)
"""The paper's two published examples and thirteen of their kind."""
