"""Building: sources, compilers, the bootstrap channel, and the builder."""
