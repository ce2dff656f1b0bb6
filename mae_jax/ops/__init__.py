"""Pure functions on arrays. Random functions take the PRNG key first: f(key, x, ...)."""
