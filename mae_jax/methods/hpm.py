"""Hard patches mining (HPM, arXiv 2304.05919): a masked autoencoder with a second decoder that
predicts which patches have a larger reconstruction loss. A teacher, the moving average of encoder
and loss predictor, predicts it for whole images, and the mask hides a share of the patches with the
largest losses. The share grows over the run: from easy to hard.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax import masks
from mae_jax.methods import mae
from mae_jax.methods.mae import MaskedAutoencoding
from mae_jax.models.cross import CrossDecoder
from mae_jax.models.mae import MAE, Decoder
from mae_jax.ops import ema, losses
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.types import Batch, Extra, Output, Params, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HardPatchesMining(MaskedAutoencoding):
    """The method; `make` documents the fields. The teacher is extra['momentum']."""

    predictor: Decoder | CrossDecoder
    """Decoder that predicts one number for each patch, whose order is that of the losses."""
    momentum: tuple[float, float]

    @property
    def loss_model(self) -> MAE:
        """The encoder with the loss predictor as its decoder."""
        return MAE(self.encoder, self.predictor)

    def init(self, key: jax.Array, batch: Batch) -> tuple[Params, Extra]:
        """Initializes parameters and constants, and the teacher as a copy of the parameters."""
        params, extra = super().init(key, batch)
        return params, self.after_load(params, extra)

    def init_params(self, key: jax.Array, images: jax.Array, mask: Mask) -> Params:
        """See `MaskedMethod`. 'predictor' are the parameters of the loss predictor."""
        params = super().init_params(key, images, mask)
        encode = functools.partial(self.model.apply, method="encode")
        shape = jax.eval_shape(encode, {"params": params}, self.normalize(images), mask)
        tokens, grid = jnp.zeros(shape.shape, shape.dtype), grid_of(images.shape[1:-1], self.unit)
        init = functools.partial(self.loss_model.init, method="decode")
        predictor = init(jax.random.fold_in(key, 1), tokens, mask, grid, 1)["params"]["decoder"]
        return params | {"predictor": predictor}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: jax.Array, step) -> Output:
        """The loss of the reconstruction plus that of the predicted order of its errors. The metric
        'ordered' is the fraction of pairs of patches whose order is predicted correctly.
        """
        images = batch["image"]
        mask, variables = self.draw_mask(key, images, step, extra), {"params": params}
        tokens = self.model.apply(variables, images, mask, self.normalize, method="encode")
        grid, values = grid_of(images.shape[1:-1], self.unit), self.values(images)
        decode = functools.partial(self.model.apply, method="decode")
        prediction = decode(variables, tokens, mask, grid, values, True)  # [B, M, V]
        reconstructed = self.targets(extra, images, mask)  # [B, M, V]
        errors = self.target.errors(prediction, reconstructed, self.loss_kind)  # [B, M, ...]
        variables = {"params": {"decoder": params["predictor"]}}
        decode = functools.partial(self.loss_model.apply, method="decode")
        predicted = decode(variables, tokens, mask, grid, 1, True)[..., 0]  # [B, M, 1] to [B, M]
        # The reconstruction must not change to become predictable.
        target = jax.lax.stop_gradient(errors.reshape(*predicted.shape, -1).mean(axis=-1))
        order, ordered = losses.pairwise_order(predicted, target)
        reconstruction = errors.mean()
        metrics = {"reconstruction": reconstruction, "order": order, "ordered": ordered}
        metrics |= self.target.metrics(reconstructed)
        return Output(reconstruction + order, extra, metrics)

    def after_update(self, params: Params, extra: Extra, step) -> Extra:
        """Updates the teacher. Its momentum rises linearly in the first half of the run."""
        extra = super().after_update(params, extra, step)
        first, last = (1 - momentum for momentum in self.momentum)
        rate = first + (last - first) * jnp.clip(2 * step / self.total_steps, 0, 1)
        return extra | {"momentum": ema.move(extra["momentum"], self.taught(params), rate)}

    def after_load(self, params: Params, extra: Extra) -> Extra:
        """The teacher starts as the parameters."""
        return super().after_load(params, extra) | {"momentum": self.taught(params)}

    def taught(self, params: Params) -> Params:
        """The parameters that the teacher has: all but the decoder's."""
        return {name: params[name] for name in ("encoder", "predictor")}

    def mask_context(
        self, images: jax.Array, step: jax.Array | int, extra: Extra
    ) -> masks.MaskContext:
        """The context of the mask, with the teacher's predictions as its guide."""
        context = super().mask_context(images, step, extra)
        guide = lambda: self.predicted_losses(images, extra)
        if "momentum" not in extra:  # in `init`, where only the shape of the mask counts
            guide = lambda: jnp.zeros((context.batch, *context.grid))
        return dataclasses.replace(context, guide=guide)

    def predicted_losses(self, images: jax.Array, extra: Extra) -> jax.Array:
        """The teacher's predictions [B, *grid] for all patches of images [B, *space, C] uint8. It
        sees whole images. Only the order of the predictions within an image has a meaning.
        """
        teacher = extra["momentum"]
        variables = {"params": {"encoder": teacher["encoder"], "decoder": teacher["predictor"]}}
        predicted = self.loss_model.apply(
            variables, images, None, normalize=self.normalize, values=1
        )  # [B, L, 1]
        return predicted.reshape(len(images), *grid_of(images.shape[1:-1], self.unit))


def make(
    *,
    encoder: str = "vit(B, patch=16)",
    decoder: str = "self",
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    decoder_attention: str = "auto",
    decoder_remat: str = "none",
    decoder_gather: str = "take",
    predictor_depth: int = 8,
    momentum: Sequence[float] = (0.999, 0.9999),
    mask: str = "hard(start=0.0, end=0.5)",
    mask_ratio: float = 0.75,
    loss: str = "mse",
    target: str = "pixels(normalize=True)",
    pool: str = "cls",
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.25,),
    dtype: str = "float32",
) -> HardPatchesMining:
    """Builds hard patches mining. Arguments that are not listed are those of `mae`.

    Args:
        encoder, decoder, decoder_width, decoder_depth, decoder_heads, decoder_attention,
            decoder_remat, decoder_gather: the networks, see `methods.mae.make`.
        predictor_depth: number of blocks of the loss predictor; otherwise it is like the decoder.
        momentum: of the teacher at the start and from the middle of the run on, each in [0, 1]; it
            rises linearly.
        mask: spec string of `mae_jax.masks`; only 'hard' uses the predictions.
        mask_ratio, loss, target, pool, mean, std, dtype: see `methods.mae.make`.

    Raises:
        UserError: an unknown or invalid value.
    """
    if len(momentum) != 2 or not all(0 <= value <= 1 for value in momentum):
        raise UserError(f"momentum={tuple(momentum)}: give two numbers in [0, 1], (0.999, 0.9999)")
    if predictor_depth < 1:
        raise UserError(f"predictor_depth={predictor_depth} must be at least 1")
    plain = mae.make(
        encoder=encoder,
        decoder=decoder,
        decoder_width=decoder_width,
        decoder_depth=decoder_depth,
        decoder_heads=decoder_heads,
        decoder_attention=decoder_attention,
        decoder_remat=decoder_remat,
        decoder_gather=decoder_gather,
        mask=mask,
        mask_ratio=mask_ratio,
        loss=loss,
        target=target,
        pool=pool,
        mean=mean,
        std=std,
        dtype=dtype,
    )
    return HardPatchesMining(
        **vars(plain),
        predictor=plain.decoder.clone(depth=predictor_depth),
        momentum=tuple(momentum),
    )
