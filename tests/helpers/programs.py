"""Programs that compilers of accelerators made of a small step, see `trim_dump`."""

import json
import lzma

from tests.helpers.jobs import ROOT

FOLDER = ROOT / "tests" / "bench" / "programs"
TOPOLOGIES = {"v5e_data": "v5e:2x2", "v5e_fsdp": "v5e:2x2", "h100_fsdp": "h100:4"}
FACTS = {
    name: dict(json.loads((FOLDER / "facts.json").read_text()), mesh=mesh)
    for name, mesh in (
        ("v5e_data", dict(data=4, fsdp=1)),
        ("v5e_fsdp", dict(data=1, fsdp=4)),
        ("h100_fsdp", dict(data=1, fsdp=4)),
    )
}


def read(name):
    """'v5e_data.hlo' or 'v5e_data.buffers'."""
    with lzma.open(FOLDER / f"{name}.xz", "rt", encoding="utf-8") as file:
        return file.read()
