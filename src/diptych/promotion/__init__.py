"""Which model may be the champion: a pure decision from figures to a verdict with reasons."""
