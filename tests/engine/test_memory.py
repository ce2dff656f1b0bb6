"""What is said when memory runs out, and that nothing else is taken for it."""

import jax
import jax.numpy as jnp
import pytest

from mae_jax.engine.memory import explained
from mae_jax.types import UserError

ADVICE = "lower config.data.batch_size (4096 now)"


def test_too_large_an_array_names_the_setting_to_lower():
    huge = jax.jit(lambda: jnp.ones((1 << 22, 1 << 24)))
    with pytest.raises(UserError, match=r"is not enough, which wanted \d+ bytes") as error:
        with explained(ADVICE):
            huge().block_until_ready()
    assert str(error.value).endswith(ADVICE) and "\n" not in str(error.value)


def test_memory_of_the_host():
    with pytest.raises(UserError, match="of this machine is not enough: lower"), explained(ADVICE):
        raise MemoryError()


def test_other_errors_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), explained(ADVICE):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(ZeroDivisionError), explained(ADVICE):
        1 / 0  # noqa: B018
