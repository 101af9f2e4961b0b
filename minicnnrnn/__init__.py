"""minicnnrnn."""
