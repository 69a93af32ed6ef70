"""Quality and speed, measured by one protocol on any machine that has torch, numpy and pydantic."""
