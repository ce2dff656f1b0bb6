"""Three small experiments, one of which cannot run; or two, one of which starts from the other."""

from ml_collections import ConfigDict

from tests.helpers import tiny, tiny_tasks


def get_configs(arg: str = "seeds") -> dict[str, ConfigDict]:
    """'seeds': two of one experiment, and one without images; 'follower': the first of these, and
    before it in the file what starts from it.
    """
    configs = {}
    for name, seed in (("mae/small/0", 0), ("broken/small/0", 0), ("mae/small/1", 1)):
        config = tiny.get_config()
        config.seed = seed
        config.schedule.update(epochs=2.0, warmup_epochs=0.0)
        config.checkpoint.every = 3
        config.evals.run = "knn(k=3)"
        configs[name] = config
    configs["broken/small/0"].data.train = "folder('nowhere')"
    if arg == "seeds":
        return configs
    tuned = tiny_tasks.get_config()
    tuned.init_from.path = "mae/small/0"
    return {"tuned/small/0": tuned, "mae/small/0": configs["mae/small/0"]}
