"""The page of a run, the model card, and a copy that can be given away."""
