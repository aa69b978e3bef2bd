"""A model adapted to a label set: a LoRA adapter that ranks candidates of a document."""
