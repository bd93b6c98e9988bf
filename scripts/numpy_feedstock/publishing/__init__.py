"""Publishing: what may be published, what is signed, and the targets."""
