"""An adapted CLIP: the frozen model with the parts of a config around and inside of it."""

from vprompt_jax.adaptation.adaptation import Adaptation, adapt, load_clip
from vprompt_jax.adaptation.model import AdaptedCLIP
from vprompt_jax.adaptation.variables import variables_of

__all__ = ["Adaptation", "AdaptedCLIP", "adapt", "load_clip", "variables_of"]
