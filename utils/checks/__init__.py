"""Instant feedback for exercises: one module per chapter, `core` beneath."""
