"""What a step costs: time, FLOPs and memory of every method, and how near that is to the least."""
