"""Both models and the pair on the test set, once: figures, a row per image, and samples judged."""
