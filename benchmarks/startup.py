"""Time until the program's help is shown, the editor is imported, and ``make demo`` has ended."""

from collections.abc import Iterator

from scale import Scale
from timing import THIS, Result, Side, alternate, compare

PROGRAMS = {
    "apa_lightning --help": ["-m", "apa_lightning", "--help"],
    "import of AudioEditor": ["-c", "from apa_lightning import AudioEditor"],
}
DEMO = ["-m", "apa_lightning", "fit", "--config", "configs/base.yaml", "--trainer.default_root_dir", "{out}"]
#: What the `make demo` of each state adds.
OWN = {"ours": ["--config", "configs/training/demo.yaml"], "today": []}


def ask(scale: Scale) -> Iterator[Result]:
    """Each question in turn: one for a test, and ``make demo`` at full length only."""
    programs = PROGRAMS | ({"make demo after installation": DEMO} if scale.pairs > 3 else {})
    for question, arguments in list(programs.items())[: 1 if scale.pairs == 1 else None]:
        demo = arguments is DEMO
        sides = [
            Side(
                name,
                "jobs/program.py",
                tree,
                {"arguments": [*arguments, *(OWN[name] if demo else [])], "cwd": str(tree)},
            )
            for name, tree in (("ours", THIS), ("today", scale.today))
        ]
        runs = alternate(sides, 1 if demo else scale.pairs, warm_up=0 if demo or scale.pairs == 1 else 1)
        yield compare(question, "the whole program", 0.5, "ours", "today", runs, at_most=True)
