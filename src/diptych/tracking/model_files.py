"""Names of a model's files: those of `diptych.checkpoints`, which takes seconds to import."""

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
