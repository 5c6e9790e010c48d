"""Measures a finished run on labelled images, its own or others."""

NAME = "evaluation.json"  # of what a model reaches on a split
ELSEWHERE = "elsewhere"  # folder of a run: a folder per dataset that it was measured on afterwards
