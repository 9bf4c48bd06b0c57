"""Result files: one module per kind, all written whole or not at all."""
