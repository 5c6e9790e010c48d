"""Parts in pixel space: what is added to an image (`vp`), and where (`adavipro`, from `edges`)."""
