"""Generators that return data together with its truth."""
