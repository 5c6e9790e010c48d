"""Measures a finished run on labelled images, its own or others."""

NAME = "evaluation.json"  # of what a model reaches on a split
NEW = "new"  # folder of a run on base classes that has one of the new classes
