"""The page of a run, the model card, the checklist, and a copy that can be given away."""
