"""Training heads on frozen features, and fine-tuning."""
