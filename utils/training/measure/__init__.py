"""What is true of the world models, found by measuring them: one module per kind of phenomenon.

Each module has one function `measure(model, ...) -> dict[str, float]`, from the name of a quantity to its value.
Models are processed bridges (TransformerLens compatibility mode: LayerNorm folded, weights centred).
"""
