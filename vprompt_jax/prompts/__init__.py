"""Pixel space: what is added to an image (`vp`) and where (`adavipro`, on `edges`)."""
