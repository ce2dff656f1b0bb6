"""Assigns instructions of a compiled program to parts of the model, by their op_name."""

import re

from mae_jax.bench.hlo import Instruction, Program

PARTS = (
    "encoder attention",
    "encoder dense",
    "decoder attention",
    "decoder dense",
    "norms",
    "pixels, patches, masks",
    "optimizer",
    "collectives",
    "copies",
    "other",
)
"""'attention' is everything between the projections; 'dense' is the projections, the MLPs and the
rest of a block; 'copies' are added by the compiler, mostly between HBM and on-chip memory;
'optimizer' includes the norm and the accumulation of gradients."""
COLLECTIVES = frozenset(
    "all-reduce all-gather reduce-scatter collective-permute all-to-all send recv".split()
)
COPIES = ("copy-start", "slice-start", "dynamic-slice-start", "async-start")

_WORDS = re.compile(
    r"checkpoint|rematted_computation|while|body|cond|closed_call|branch_\d+_fun|shard_map|"
    r"custom_(jvp|vjp)_call\w*|pallas_call|vmap|remat2?"
)
"""Elements of an op_name that are not modules."""
_ATTENTION = re.compile(r"(self_|cross_)?(attention|attn)")
_PROJECTIONS = frozenset("q k v kv qkv query key value proj out output projection".split())


def module_of(op_name: str) -> str:
    """The module of an op_name: 'decoder/block_0/attention' for
    'jit(step)/jvp(MAE)/decoder/block_0/attention/bhts,bhsd->bhtd/dot_general'; '' for none.
    """
    path = op_name.partition(";")[0].split("/")[:-1]  # without the primitive
    modules = [name for name in path if re.fullmatch(r"\w+", name) and not _WORDS.fullmatch(name)]
    return "/".join(modules)


def part_of(one: Instruction, program: Program) -> str:
    """The part of the model, one of `PARTS`, that an instruction belongs to."""
    called = [program.computations[name] for _, name in one.callees if name in program.computations]
    opcodes = {one.opcode.removesuffix("-start")}
    if called and one.opcode in ("fusion", "async-start"):
        opcodes |= {inner.opcode for inner in called[0].values()}
    if opcodes & COLLECTIVES and "async_collective" not in one.attributes:
        return "collectives"
    if one.opcode in COPIES or one.opcode == "copy" and not one.op_name:
        return "copies"
    return part_of_name(one.op_name)


def part_of_name(op_name: str) -> str:
    """The part of the model, one of `PARTS`, that an op_name belongs to."""
    modules = module_of(op_name).split("/")
    if any(name.startswith("norm") for name in modules):
        return "norms"
    for side in ("encoder", "decoder"):
        if side in modules:
            below = modules[modules.index(side) + 1 :]
            if not below:
                return "pixels, patches, masks"
            inside = any(_ATTENTION.fullmatch(name) for name in below)
            return f"{side} {'dense' if not inside or _PROJECTIONS & set(below) else 'attention'}"
    if not op_name:
        return "other"
    masks = re.search(r"jvp\(|threefry|random|stream_key", op_name)
    return "pixels, patches, masks" if masks else "optimizer"
