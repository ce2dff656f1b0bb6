"""Gradient rollout for a class (Chefer et al. 2021, arXiv 2103.15679): which patches raise the
score that a classifier gives a class.
"""

import functools

import jax
import numpy as np
from flax import linen as nn

from mae_jax.evals.classes import softmax
from mae_jax.explain import heat
from mae_jax.explain.attention import no_attention
from mae_jax.explain.network import Network
from mae_jax.explain.subject import Subject, class_name
from mae_jax.explain.view import Shown, View
from mae_jax.models.transformer import Attention
from mae_jax.types import UserError

OUTPUTS = ("logits", "multilabel_logits")
"""Outputs of methods that have a score for each class."""


def make(*, label: int | None = None) -> View:
    """A view of the patches that a classifier uses.

    Args:
        label: number of the class to explain; None: the predicted class, and the second best.
    """
    return View(
        name="class_rollout",
        title="Patches that speak for a class",
        section="attention",
        order=3,
        reads="Bright patches raise the score of the class named below each image: attention times "
        "its gradient, where positive, followed through all blocks.",
        misleads="It shows what the score reacts to, not what is in the image, and leaves out what "
        "speaks against the class. Where the two maps of an image are alike, they show objects "
        "and not classes.",
        draw=lambda subject: drawn(subject, label),
        check=no_classes,
    )


def no_classes(subject: Subject) -> str | None:
    """Why a model has no scores of classes by attention; None: it has some."""
    if not {*OUTPUTS} & {*subject.network.method.offers()}:
        return "the method does not predict one score for each class"
    return no_attention(subject)


def gradient_rollout(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """R = R + mean over heads of max(0, gradient * weight) R, block by block from R = identity.

    Args:
        weights, gradients: [blocks, heads, T, T] (query, key), the latter of a score.

    Returns:
        [T, T] float64: the relevance of each input token to each output token.
    """
    relevance = np.eye(weights.shape[-1])
    for block, gradient in zip(weights, gradients, strict=True):
        product = np.maximum(gradient.astype(np.float64) * block, 0).mean(axis=0)
        relevance = relevance + product @ relevance
    return relevance


def scores(network: Network, params, images: jax.Array, nudges: list | None = None) -> jax.Array:
    """Scores [B, classes] of uint8 images.

    Args:
        params: of the method.
        nudges: [B, heads, T, T] of each block, which are added to its attention weights.
    """

    def intercept(call, args, kwargs, context):
        called = isinstance(context.module, Attention) and context.method_name == "__call__"
        if called and nudges is not None:
            block = int(context.module.path[-2].removeprefix("block_"))
            kwargs = kwargs | {"nudge": nudges[block]}
        return call(*args, **kwargs)

    (output,) = {*OUTPUTS} & {*network.method.offers()}
    with nn.intercept_methods(intercept):
        batch = {"image": images}
        return network.method.predict(params, network.extra, batch, outputs=(output,))[output]


def gradients(network: Network) -> tuple:
    """Compiled functions of parameters and images [1, H, W, C]: to scores [classes], and with zeros
    in the shapes of the attention weights and a class, to the gradients of its score.
    """
    forward = jax.jit(lambda params, images: scores(network, params, images)[0])

    @jax.jit
    def backward(params, images, zeros, number):
        score = lambda nudges: scores(network, params, images, nudges)[0, number]
        return jax.grad(score)(zeros)

    return forward, backward


def drawn(subject: Subject, label: int | None) -> Shown:
    """The view."""
    network, prefix = subject.network, subject.network.encoder.prefix
    forward, backward = gradients(network)
    found, captions, chosen, shares = [], [], [], []
    for title, image in zip(subject.titles(), subject.images, strict=True):
        images = image[None]
        weights = network.compute(images, "attention_weights")
        zeros = jax.tree.map(np.zeros_like, weights)
        logits = np.asarray(forward(network.params, images))
        if label is not None and not 0 <= label < len(logits):
            raise UserError(f"class_rollout: label={label} is not in 0 to {len(logits) - 1}")
        classes = np.argsort(-logits, kind="stable")[:2] if label is None else np.array([label])
        maps = []
        for number in classes:
            slopes = backward(network.params, images, zeros, number)
            relevance = gradient_rollout(np.stack(weights)[:, 0], np.stack(slopes)[:, 0])
            maps.append(of_patches(relevance, prefix, subject.pool))
        found.append(maps)
        chosen.append(classes.tolist()), shares.append(softmax(logits)[classes].round(4).tolist())
        names = [class_name(network.classes, number) for number in classes]
        if "logits" in network.method.offers():
            names = [f"{name} {100 * p:.0f}%" for name, p in zip(names, shares[-1], strict=True)]
        captions.append(f"{title}. Predicted: {', then '.join(names)}")
    maps = np.stack(found)  # [N, classes, L]
    show = functools.partial(heat.heat, subject.images, grid=subject.grid)
    tiles = {"image": heat.rgb(subject.images)}
    words = (
        ["best class", "second class"] if label is None else [class_name(network.classes, label)]
    )
    tiles |= {word: show(maps[:, number]) for number, word in enumerate(words)}
    alike = [np.corrcoef(pair)[0, 1] for pair in maps if len(pair) == 2 and pair.std(1).all()]
    findings = []
    if alike:
        findings.append(f"The maps of the two classes correlate by {np.mean(alike):.2f}.")
    numbers = {"classes": chosen, "probabilities": shares, "relevance": maps.round(6).tolist()}
    return Shown(numbers=numbers, findings=findings, tiles=tiles, captions=captions)


def of_patches(relevance: np.ndarray, prefix: int, pool: str) -> np.ndarray:
    """The relevance [L] of patches to pooled features, from [T, T]; `pool` as in `Subject`."""
    relevance = relevance - np.eye(len(relevance))
    rows = relevance[:prefix] if pool == "cls" else relevance[prefix:]
    return rows[:, prefix:].mean(axis=0)
