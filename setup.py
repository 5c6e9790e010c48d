"""What pyproject.toml cannot say: configs/ of the top level travels in the wheel, too."""

from setuptools import find_packages, setup

# `launching.shipped` finds it there; in a checkout, installed or not, it takes configs/ itself.
SHIPPED = "vprompt_jax.shipped.configs"

setup(
    packages=[*find_packages(include=["vprompt_jax*"]), SHIPPED, f"{SHIPPED}.sweeps"],
    package_dir={SHIPPED: "configs"},
)
