"""Package files: how they are read, written, checked and healed."""
