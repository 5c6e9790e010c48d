"""Parts inside the frozen tower: they change its activations, or train some of its weights."""
