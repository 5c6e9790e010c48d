"""Heads: class logits from image features, by text embeddings, a linear layer or a label map."""
