"""From image features to class logits: against text embeddings, or a linear layer."""
