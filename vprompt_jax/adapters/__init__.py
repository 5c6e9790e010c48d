"""Inside the frozen tower: what is added at its activations, and which of its weights train."""
