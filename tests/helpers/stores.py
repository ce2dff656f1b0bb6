"""A store of a job whose processes are objects in one process."""


class Memory:
    """See `mae_jax.distributed.watchdog.Store`."""

    def __init__(self):
        self.values = {}
        self.met = []

    def set(self, key, value):
        """Writes."""
        self.values[key] = value

    def all(self, folder):
        """What is in a folder."""
        start = f"{folder}/"
        return {k.removeprefix(start): v for k, v in self.values.items() if k.startswith(start)}

    def get(self, key, timeout):
        """A value that is there."""
        return self.values[key]

    def meet(self, name, timeout):
        """Notes that it was called."""
        self.met.append(name)
