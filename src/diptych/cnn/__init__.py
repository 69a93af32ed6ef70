"""The classifier: parameters, model, training, metrics."""
