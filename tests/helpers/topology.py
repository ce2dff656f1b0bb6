"""Compiles the step of a small model for slices of TPUs, from the command line, in a process of its
own: python -m tests.helpers.topology NAME SLICES CHANGE...
"""

import json
import re
import sys
from collections import Counter

from jax.experimental import topologies

from mae_jax.bench.setup import make_setup
from mae_jax.config import load_config

SMALL = [
    "method.args.encoder=vit(width=64, depth=1, heads=2, patch=8)",
    "method.args.decoder_width=64",
    "method.args.decoder_depth=1",
    "method.args.decoder_heads=2",
]
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter)(?:-start)?\(.*channel_id=(\d+)")


def main(name, slices, *changes):
    """Prints the mesh, the options, the collectives by kind and the bytes of temporaries."""
    more = dict(num_slices=int(slices)) if slices != "1" else {}
    topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **more)
    batch = f"data.batch_size={2 * len(topology.devices)}"
    config = load_config("configs/mae.py:B/16", [*SMALL, batch, *changes])
    setup = make_setup(config, [32], devices=topology.devices)
    compiled = setup.step().lower(setup.abstract_state, setup.abstract_batch()).compile()
    # The text has a collective again where it is in an asynchronous fusion.
    found = {channel: kind for kind, channel in COLLECTIVE.findall(compiled.as_text())}
    print(
        json.dumps(
            dict(
                mesh=dict(setup.mesh.shape),
                options=setup.compiler_options,
                collectives=Counter(found.values()),
                bytes=compiled.memory_analysis().temp_size_in_bytes,
            )
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
