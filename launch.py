"""Trains what a config file describes: python launch.py --config configs/quickstart.py"""

import sys

from vprompt_jax.launching import command_line

USAGE = """python launch.py --config FILE [--workdir DIR] [--config.section.key=value]...

all options: python launch.py --help"""

if __name__ == "__main__":
    command_line.main(["python", sys.argv[0]], sys.argv[1:], USAGE)
