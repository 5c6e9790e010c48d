"""Measures a finished run on labelled images, its own or others."""
