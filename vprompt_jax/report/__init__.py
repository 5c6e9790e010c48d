"""Tables and figures of finished runs."""
def write(dirs, out): return []
