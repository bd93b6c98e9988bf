"""The feedstock's command line: one module per verb, over a few nouns."""
