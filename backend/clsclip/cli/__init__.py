"""Commands: arguments of a settings model, and one module per command."""
