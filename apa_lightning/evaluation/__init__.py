"""Evaluation as in the paper (Sec. 4 and 5) and beyond: tasks, systems side by side, measures, tables, sweeps, report."""
