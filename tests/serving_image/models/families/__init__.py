"""Every family of models, held to an implementation that is not ours."""
