"""The recipes that made the shipped models: `python -m utils.training <name>` remakes one from its seed."""
