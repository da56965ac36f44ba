"""The help of the program itself. It imports no command: Lightning alone takes seconds."""

PROGRAM = "python -m apa_lightning"
COMMANDS = {
    "fit": "Train an adapter.",
    "validate": "Compute the validation losses of an adapter, and its edits.",
    "test": "The same on a data module's test set.",
    "predict": "Edit a folder of recordings, or the lines of a manifest.",
    "evaluate": "Edit a set by several systems and measure them: tables, plots, a page to listen to.",
    "sweep": "Choose an operating point for each task from an evaluation that tried values of the knobs.",
    "findings": "Check the six findings of the paper from an evaluation's results.csv.",
    "shards": "Make shards from AudioSet's files and a folder of clips.",
    "render": "Compose music and render it into shards with AudioSet labels.",
    "sizes": "Build a backbone without weights and print its sizes.",
    "adapter": "Check, describe and convert an adapter file.",
    "publish": "Make a folder for the Hugging Face hub of an adapter, with its model card, and upload it.",
    "studio": "Edit recordings in the browser: a page on this machine that needs no network.",
    "listening-test": "Build the page of the paper's listening test, and score the answers.",
}


def overview() -> str:
    """What the program can do, for the screen."""
    lines = (f"  {name:16}{about}" for name, about in COMMANDS.items())
    return "\n".join(
        (
            f"usage: {PROGRAM} COMMAND [--config FILE ...] [--SETTING VALUE ...]\n",
            "Train, evaluate and use Audio Prompt Adapters for editing music by text.\n",
            "commands:",
            *lines,
            f"\n{PROGRAM} COMMAND --help lists the settings of a command.",
        )
    )
