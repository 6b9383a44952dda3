"""TensorFlow, weights, building networks, frozen features, and caches of arrays."""
