"""Losses: penalties beside the cross-entropy."""
