"""What a layer of the decoder is made of: one file per operation."""
