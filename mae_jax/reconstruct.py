"""Pictures of a trained run's reconstructions: rows of images, three planes of volumes, or frames
of clips, as its figures draw them at the end of training.
"""

from collections.abc import Sequence
from pathlib import Path

from mae_jax.evaluate import context
from mae_jax.figures.figure import Figure, save
from mae_jax.run import Run
from mae_jax.spec import build, call, maker, parse
from mae_jax.types import TrainState, UserError

IMAGES = ("reconstructions",)
VOLUMES = ("planes", "film")
"""Names of figures for images of three dimensions."""


def reconstruct(
    run: Run,
    state: TrainState,
    path: Path,
    *,
    figure: Figure,
    workdir: Path,
    count: int | None = None,
    seed: int = 0,
) -> Path:
    """Draws the method's pictures of the first images of the test split, or of the training split
    if there is no test split.

    Args:
        path: PNG file to write.
        figure: what to draw, see `figure_for`.
        workdir: of the run.
        count: number of images; None: as many as the figure draws by itself.
        seed: random seed, e.g. of the masks.

    Raises:
        UserError: the method has no pictures.
    """
    if reason := figure.check(run.method):
        raise UserError(f"{run.name}: {reason}")
    return save(figure.sheet(context(run, state, workdir), count, seed), path)


def figure_for(image: Sequence[int], configured: str, spec: str | None = None) -> Figure:
    """The figure that draws reconstructions of a run.

    Args:
        image: [*space, C] of its images.
        configured: `config.evals.figures` of the run. Of images of three dimensions, which may be
            volumes or clips, this is what tells `planes` from `film`.
        spec: spec string of another figure; None: that of the run, or the usual one.

    Raises:
        UserError: a figure that draws no reconstructions.
    """
    if spec:
        figure = build(spec, "figures", Figure)
        if figure.sheet is None:
            raise UserError(
                f"--figure {spec} draws no reconstructions: choose reconstructions, planes or film"
            )
        return figure
    names = VOLUMES if len(image) == 4 else IMAGES
    for name, args, options in parse(configured):
        if name in names:
            return call(configured, maker(name, "figures", Figure), *args, **options)
    return build(names[0], "figures", Figure)
