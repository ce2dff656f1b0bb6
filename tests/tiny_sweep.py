"""Three small experiments, one of which cannot run."""

from ml_collections import ConfigDict

from tests import tiny


def get_configs(broken: str = "nowhere") -> dict[str, ConfigDict]:
    """Two seeds of one experiment, and one whose images are in the folder `broken`."""
    configs = {}
    for name, seed in (("mae/small/0", 0), ("broken/small/0", 0), ("mae/small/1", 1)):
        config = tiny.get_config()
        config.seed = seed
        config.schedule.update(epochs=2.0, warmup_epochs=0.0)
        config.checkpoint.every = 3
        config.evals.run = "knn(k=3)"
        configs[name] = config
    configs["broken/small/0"].data.train = f"folder('{broken}')"
    return configs
