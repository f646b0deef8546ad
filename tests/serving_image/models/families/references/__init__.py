"""Plain-torch implementations of families that Transformers does not contain, each from its published definition."""
