"""Measuring: the figures of the evidence, and where they are taken."""
