"""Images and labels: where they come from, whether they are intact, how they are split."""
