"""A method for tests of what trains one: of the contract, only what a test defines is there."""

import dataclasses

from mae_jax.types import Method


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PlainMethod(Method):
    """Offers nothing."""

    def offers(self):
        """Nothing."""
        return ()

    def loss(self, params, extra, batch, key, step):
        """For tests that do not train."""
        raise NotImplementedError

    def predict(self, params, extra, batch, *, outputs):
        """Nothing."""
        return {}
