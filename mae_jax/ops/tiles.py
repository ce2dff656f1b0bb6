"""Tiles of images, for tasks that ask where a part belongs: cut with random gaps, robbed of what
gives their places away without being understood, and the orders in which they are shuffled
(relative position, arXiv 1505.05192; jigsaw puzzles, arXiv 1603.09246).
"""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.types import UserError


def cut(key: jax.Array, images: jax.Array, tile: int) -> jax.Array:
    """Nine square tiles of each image, one from each of its 3 x 3 cells.

    A cell is a third of the image in each direction, rounded down; what remains is left out, half
    of it on each side. A tile lies anywhere inside of its cell with equal probability,
    independently of all others, so there are gaps of random width between neighbours: lines and
    textures that go on across a border give nothing away. A tile as large as its cell leaves no
    gaps.

    Args:
        images: [B, H, W, C] of any type.
        tile: side in pixels.

    Returns:
        [B, 9, tile, tile, C], row-major over the cells.

    Raises:
        UserError: a tile that does not fit in a cell.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // 3, width // 3
    largest = min(rows, columns)
    if not 1 <= tile <= largest:
        raise UserError(
            f"tile={tile} does not fit: images of {height} x {width} have cells of {rows} x "
            f"{columns} pixels, a third of each side, so the largest tile is {largest}"
        )
    room = jnp.array([rows - tile + 1, columns - tile + 1])
    places = jax.random.randint(key, (batch, 9, 2), 0, room)
    cells = np.stack(np.mgrid[:3, :3], axis=-1).reshape(9, 2) * [rows, columns]
    places += cells + [height % 3 // 2, width % 3 // 2]

    def take(image, place):
        return jax.lax.dynamic_slice(image, (*place, 0), (tile, tile, channels))

    return jax.vmap(jax.vmap(take, (None, 0)))(images, places)


def drop_colors(key: jax.Array, tiles: jax.Array) -> jax.Array:
    """Leaves every tile one of its three channels, chosen at random; the others become Gaussian
    noise around 0 with 1/100 of the standard deviation of the one that stays (arXiv 1505.05192,
    section 3.1). Lenses bend colours differently, so channels that do not quite lie on top of each
    other would tell how far from the centre of the photograph a tile is.

    Args:
        tiles: [..., H, W, 3] float, with the mean of the data at 0.

    Raises:
        UserError: not three channels.
    """
    _check_rgb(tiles)
    choice_key, noise_key = jax.random.split(key)
    chosen = jax.random.randint(choice_key, (*tiles.shape[:-3], 1, 1, 1), 0, 3)
    stays = jnp.arange(3) == chosen
    deviation = jnp.where(stays, tiles.std(axis=(-3, -2), keepdims=True), 0).sum(-1, keepdims=True)
    noise = jax.random.normal(noise_key, tiles.shape, tiles.dtype)
    return jnp.where(stays, tiles, 0.01 * deviation * noise)


def project_colors(tiles: jax.Array) -> jax.Array:
    """Removes from every colour its part along a = (-1, 2, -1), the axis from magenta to green, on
    which lenses err most: x (I - a'a / aa') for colours x that are rows (arXiv 1505.05192, section
    3.1). All other directions stay, grey among them.

    Args:
        tiles: [..., 3] float, RGB on one scale.

    Raises:
        UserError: not three channels.
    """
    _check_rgb(tiles)
    # Not a matrix product: accelerators would round its factors to bfloat16 or tf32.
    excess = (2 * tiles[..., 1:2] - tiles[..., :1] - tiles[..., 2:]) / 6
    return tiles + excess * jnp.array([1, -2, 1], tiles.dtype)


def normalize_tiles(tiles: jax.Array) -> jax.Array:
    """Removes the mean and the standard deviation of each channel of each tile, as brightness and
    contrast of neighbours are alike (arXiv 1603.09246). A variance counts as 1e-6
    more than it is, so that an even tile is 0.

    Args:
        tiles: [..., H, W, C] float, in [0, 1].
    """
    mean = tiles.mean(axis=(-3, -2), keepdims=True)
    variance = tiles.var(axis=(-3, -2), keepdims=True)
    return (tiles - mean) * jax.lax.rsqrt(variance + 1e-6)


def permutations(count: int, *, seed: int) -> np.ndarray:
    """Orders of nine tiles that differ in as many places as a greedy search can make them.

    The first is drawn at random. Then always comes the one of the 9! whose smallest Hamming
    distance to those chosen is largest; among equals the one with the largest sum of distances, and
    among those the first in lexicographic order. Algorithm 1 of arXiv 1603.09246 goes by the sum
    alone, which lets in orders that are nearly equal to one of those chosen, and two such are
    almost impossible to tell apart: two of its hundred differ in 2 places, any two of these in 6
    at least.

    Args:
        count: how many, from 2 to 9! = 362,880. The time grows with it.
        seed: of the first one.

    Returns:
        [count, 9] uint8, in the order in which they were chosen.

    Raises:
        UserError: a count out of its range.
    """
    everything = _all_permutations(9)
    if not 2 <= count <= len(everything):
        raise UserError(f"{count} permutations of nine tiles: choose 2 to {len(everything)}")
    places = np.ascontiguousarray(everything.T)  # a place after another is what is compared fast
    nearest = np.full(len(everything), 10, np.int32)
    total = np.zeros(len(everything), np.int32)
    chosen = [np.random.default_rng(seed).integers(len(everything))]
    while len(chosen) < count:
        distance = np.zeros(len(everything), np.uint8)
        for place in places:
            distance += place != place[chosen[-1]]
        np.minimum(nearest, distance, out=nearest)
        total += distance
        chosen.append(np.argmax(nearest * (9 * count) + total))
    return everything[chosen]


def _all_permutations(size):
    """[size!, size] uint8 in lexicographic order."""
    if size == 0:
        return np.zeros((1, 0), np.uint8)
    rest = _all_permutations(size - 1)
    # What follows a first number are the others, closed up: those from it on are one larger.
    after = lambda first: np.insert(rest + (rest >= first).astype(np.uint8), 0, first, axis=1)
    return np.concatenate([after(first) for first in range(size)])


def _check_rgb(tiles):
    if tiles.shape[-1] != 3:
        raise UserError(
            f"taking colour out of tiles needs 3 channels (RGB), but these have {tiles.shape[-1]}: "
            "leave them as they are with colors=keep"
        )
