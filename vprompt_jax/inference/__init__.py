"""A CLIP with its trained adaptation, ready for new images."""
