"""TensorFlow, weights, building, frozen features, and the caches of arrays."""
