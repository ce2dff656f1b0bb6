"""Tiles of images for spatial pretext tasks (relative position, arXiv 1505.05192; jigsaw puzzles,
arXiv 1603.09246): cut with random gaps, with low-level position cues (chromatic aberration,
brightness, contrast) removed, and permuted.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.types import UserError


def cut(key: jax.Array, images: jax.Array, tile: int) -> jax.Array:
    """Cuts nine square tiles from each image, one from each cell of a 3 x 3 grid.

    A cell is a third of the image in each direction, rounded down, and the grid is centered. The
    position of a tile in its cell is uniform and independent of the others. The random gaps between
    tiles prevent a shortcut: lines and textures that continue across borders. A tile as large as
    its cell leaves no gaps.

    Args:
        images: [B, H, W, C] of any type.
        tile: side of a tile in pixels.

    Returns:
        [B, 9, tile, tile, C], row-major over the cells.

    Raises:
        UserError: a tile larger than a cell.
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
    corners = jax.random.randint(key, (batch, 9, 2), 0, room)  # (row, column) within the cell
    cells = np.stack(np.mgrid[:3, :3], axis=-1).reshape(9, 2) * [rows, columns]
    corners += cells + [height % 3 // 2, width % 3 // 2]

    def take(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (tile, tile, channels))

    return jax.vmap(jax.vmap(take, (None, 0)))(images, corners)  # over images, then their 9 tiles


def drop_colors(key: jax.Array, tiles: jax.Array) -> jax.Array:
    """Color dropping (arXiv 1505.05192, section 3.1): keeps one random channel of each tile and
    replaces the others by Gaussian noise of mean 0 and 1/100 of that channel's standard deviation.

    It removes chromatic aberration: lenses shift the channels against each other, by an amount that
    reveals the distance of a tile from the center of the photograph.

    Args:
        tiles: [..., H, W, 3] float, normalized by the mean of the data.

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
    """Projection (arXiv 1505.05192, section 3.1): removes from each color its component along
    a = (-1, 2, -1), the green-magenta axis, where chromatic aberration is strongest. Each row x
    becomes x (I - a'a / aa'). Orthogonal directions, including gray, do not change.

    Args:
        tiles: [..., 3] float RGB, with the same scale for all channels.

    Raises:
        UserError: not three channels.
    """
    _check_rgb(tiles)
    # Not a matrix product: accelerators would round its factors to bfloat16 or TF32.
    excess = (2 * tiles[..., 1:2] - tiles[..., :1] - tiles[..., 2:]) / 6
    return tiles + excess * jnp.array([1, -2, 1], tiles.dtype)


def normalize_tiles(tiles: jax.Array) -> jax.Array:
    """Normalizes each channel of each tile to mean 0 and standard deviation 1 (arXiv 1603.09246),
    because neighbors share brightness and contrast. 1e-6 is added to the variance, so that a
    constant tile becomes 0.

    Args:
        tiles: [..., H, W, C] float, in [0, 1].
    """
    mean = tiles.mean(axis=(-3, -2), keepdims=True)
    variance = tiles.var(axis=(-3, -2), keepdims=True)
    return (tiles - mean) * jax.lax.rsqrt(variance + 1e-6)


def permutations(count: int, *, seed: int) -> np.ndarray:
    """A set of permutations of nine tiles with large pairwise Hamming distances, by greedy search.

    The first permutation is random. Each next one maximizes the smallest Hamming distance to those
    already chosen; ties are broken by the largest sum of distances, then by lexicographic order.
    Algorithm 1 of arXiv 1603.09246 maximizes the sum only, and so admits pairs of nearly equal
    permutations, which are hard to distinguish: among 100 of its permutations some differ in only 2
    positions, among 100 of these all in at least 6.

    Args:
        count: number of permutations, from 2 to 9! = 362,880. The time grows with it.
        seed: of the first permutation.

    Returns:
        [count, 9] uint8, in the order of their choice.

    Raises:
        UserError: a count out of its range.
    """
    candidates = _all_permutations(9)  # [9!, 9]
    if not 2 <= count <= len(candidates):
        raise UserError(f"{count} permutations of nine tiles: choose 2 to {len(candidates)}")
    columns = np.ascontiguousarray(candidates.T)  # [9, 9!]: comparing contiguous rows is fastest
    nearest = np.full(len(candidates), 10, np.int32)
    total = np.zeros(len(candidates), np.int32)
    chosen = [np.random.default_rng(seed).integers(len(candidates))]
    while len(chosen) < count:
        distance = np.zeros(len(candidates), np.uint8)
        for column in columns:
            distance += column != column[chosen[-1]]
        np.minimum(nearest, distance, out=nearest)
        total += distance
        chosen.append(np.argmax(nearest * (9 * count) + total))  # total < 9 count breaks ties
    return candidates[chosen]


def _all_permutations(size):
    """[size!, size] uint8 in lexicographic order."""
    if size == 0:
        return np.zeros((1, 0), np.uint8)
    rest = _all_permutations(size - 1)
    # After a first number come the permutations of the others: numbers from it on shift by one.
    after = lambda first: np.insert(rest + (rest >= first).astype(np.uint8), 0, first, axis=1)
    return np.concatenate([after(first) for first in range(size)])


def _check_rgb(tiles):
    if tiles.shape[-1] != 3:
        raise UserError(
            f"removing color from tiles needs 3 channels (RGB), but these have {tiles.shape[-1]}: "
            "set colors=keep"
        )
