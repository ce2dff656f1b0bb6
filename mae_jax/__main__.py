"""`python -m mae_jax` is `mae-jax`."""

from mae_jax.cli import main

if __name__ == "__main__":
    main()
