"""What leaving hidden patches out of the encoder saves (arXiv 2111.06377, table 2), measured here:
python -m tests.campaigns.wall_clock [--encoder L/16] [--batch-size 8] [--turns 3]

Times loss and gradients, in turns that alternate: with mask tokens in the encoder, and without,
with a decoder of 8 blocks and of 1. The optimizer, the same for all, is left out. The paper reports
2.8 and 3.7 for ViT-L on TPUs; 'by operations' is what counting them gives.
"""

import argparse
import functools

import jax

from mae_jax.bench.flops import count
from mae_jax.bench.setup import make_setup
from mae_jax.bench.timing import measure, repeat, shown, spread
from mae_jax.config import load_config

CASES = {
    "mask tokens in the encoder, decoder 8": dict(mask_tokens_in_encoder=True, decoder_depth=8),
    "visible only, decoder 8": dict(decoder_depth=8),
    "visible only, decoder 1": dict(decoder_depth=1),
}


def start(setup):
    """Parameters and a batch."""
    batch = setup.batch()
    return jax.jit(setup.method.init)(jax.random.key(0), batch)[0], batch


def gradient(method):
    """The loss of a batch and its gradients, as in training."""
    return jax.jit(
        jax.value_and_grad(
            lambda params, batch: method.loss(params, {}, batch, jax.random.key(1), 0).loss
        )
    )


def main():
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="L/16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    works, flops = {}, {}
    for name, changes in CASES.items():
        config = load_config(f"configs/mae.py:{args.encoder}")
        config.data.batch_size = args.batch_size
        config.method.args.update(dtype=args.dtype, **changes)
        setup = make_setup(config)
        works[name] = repeat(functools.partial(gradient(setup.method), *start(setup)))
        flops[name] = sum(count(setup.method, setup.shape).train.values())
    found = {name: spread(values) for name, values in measure(works, args.turns, 0.1).items()}
    first = next(iter(CASES))
    print(f"ViT-{args.encoder}, batch {args.batch_size}, {args.dtype}, {jax.devices()[0]}\n")
    print("| | seconds | faster by | by operations |\n|---|---|---|---|")
    for name, times in found.items():
        ratio = found[first]["median"] / times["median"]
        bound = flops[first] / flops[name]
        print(f"| {name} | {shown(times, 2)} | {ratio:.2f} | {bound:.2f} |")


if __name__ == "__main__":
    main()
