"""What the ``kubernetes`` provider is made of: requests, manifests, and what an object's state means for a replica."""
