"""Random histories of the lifecycle, thousands of them."""
