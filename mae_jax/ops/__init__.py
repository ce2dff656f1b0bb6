"""Pure functions on arrays. Random ones take the key first: f(key, x, ...)."""
