"""One file per phase: ``step(situation) -> Outcome``, with no database session held."""
