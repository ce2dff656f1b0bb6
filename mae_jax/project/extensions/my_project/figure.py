"""A figure: a histogram of the feature values of some held-out images."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from mae_jax.figures.figure import Figure, FigureContext, save


def make(count: int = 64) -> Figure:
    """Makes the figure. In a config: evals.figures='curves|my_project.figure(count=64)'

    Args:
        count: number of images.
    """

    def draw(context: FigureContext):
        predict = context.predict(("features",))
        outputs = [predict(batch) for batch in context.data.eval("test", count)]
        features = np.concatenate([np.asarray(one["features"])[one["valid"]] for one in outputs])
        canvas = Canvas((5, 3), dpi=150, layout="constrained")
        axis = canvas.subplots()
        axis.hist(features.ravel(), bins=50)
        axis.set(xlabel="value", title=f"features after {context.step} steps")
        return [save(canvas, context.folder / "features.png")]

    return Figure(name="features", files=("features.png",), draw=draw)
