"""One file per family: what makes it itself."""
