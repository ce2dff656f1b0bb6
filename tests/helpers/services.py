"""Stand-ins for the packages wandb and mlflow: they keep what a run sends, also after it ends."""

import types


class Service:
    """What arrives at a service, of all runs, by their ids."""

    def __init__(self):
        self.runs, self.starts = {}, []
        self.down = False

    def run_of(self, number):
        """The record of a run, made if it is new."""
        empty = dict(logged=[], config={}, files={}, images=[], summary={}, status=None)
        return self.runs.setdefault(number, empty)

    def reach(self):
        """Fails if the network is down."""
        if self.down:
            raise ConnectionError("no route to the service")

    def series(self, name):
        """(step, value) of a metric of the only run, in the order in which they arrived."""
        (run,) = self.runs.values()
        return [(line["step"], line[name]) for line in run["logged"] if name in line]


class WandBRun:
    """What wandb.init returns."""

    def __init__(self, service, number):
        self.service, self.record = service, service.run_of(number)
        self.summary = self.record["summary"]

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.service.reach()
        assert "step" in values
        pictures = [(values["step"], k, *v) for k, v in values.items() if type(v) is tuple]
        self.record["images"] += pictures
        self.record["logged"].append({k: v for k, v in values.items() if type(v) is not tuple})

    def finish(self, exit_code):
        self.record["status"] = exit_code


def wandb(service):
    """A module wandb that sends to a service."""

    class UsageError(Exception):
        pass

    def init(*, id, config, mode, **more):
        if service.down == "no login":
            raise UsageError("api_key not configured (no-tty). call wandb.login(key=...)\nmore")
        service.reach()
        service.starts.append(dict(id=id, mode=mode, **more))
        service.run_of(id)["config"] = config
        return WandBRun(service, id)

    module = types.ModuleType("wandb")
    module.init, module.errors = init, types.SimpleNamespace(UsageError=UsageError)
    module.Settings = lambda **options: options
    module.Image = lambda pixels, caption: (pixels.shape, caption)
    module.Table = lambda columns, data: [columns, *data]
    return module


class MlflowClient:
    """mlflow.MlflowClient; a module has the class with its service."""

    service: Service

    def __init__(self, tracking_uri):
        self.service.uri = tracking_uri

    def get_experiment_by_name(self, name):
        self.service.reach()
        return None

    def create_experiment(self, name, artifact_location):
        self.service.experiment = (name, artifact_location)
        return "7"

    def create_run(self, experiment_id, run_name):
        assert experiment_id == "7"
        number = f"run{len(self.service.runs)}"
        self.service.run_of(number)["name"] = run_name
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=number))

    def update_run(self, run_id, status):
        self.service.starts.append(run_id)
        self.service.runs[run_id]["status"] = status

    def get_run(self, run_id):
        params = dict(self.service.runs[run_id]["config"])
        return types.SimpleNamespace(data=types.SimpleNamespace(params=params))

    def log_batch(self, run_id, metrics=(), params=()):
        self.service.reach()
        assert len(params) <= 100
        record = self.service.runs[run_id]
        for key, value in params:
            assert record["config"].setdefault(key, value) == value, "parameters never change"
        record["logged"] += [{"step": step, name: value} for name, value, _, step in metrics]

    def log_dict(self, run_id, content, name):
        self.service.runs[run_id]["files"][name] = content

    log_text = log_dict

    def log_image(self, run_id, pixels, key, step):
        self.service.runs[run_id]["images"].append((step, key, pixels.shape))

    def set_terminated(self, run_id, status):
        self.service.runs[run_id]["status"] = status


def mlflow(service):
    """A module mlflow that sends to a service."""
    module = types.ModuleType("mlflow")
    module.MlflowClient = type("MlflowClient", (MlflowClient,), {"service": service})
    module.get_tracking_uri = lambda: "http://tracking"
    module.entities = types.SimpleNamespace(
        Metric=lambda key, value, timestamp, step: (key, value, timestamp, step),
        Param=lambda key, value: (key, value),
    )
    return module
