"""The shared package of *Ground Truth*, a course in mechanistic interpretability."""

__course__ = "ground-truth"
__version__ = "0.1.0"
