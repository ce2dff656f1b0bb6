/* Masks of patches, by the definitions of mae_jax.masks, with random numbers of their own: a seed
   gives other masks than in Python. */

/* Numbers in [0, 1) from a seed: mulberry32, public domain, by Tommy Ettinger. */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const product = (sides) => sides.reduce((all, side) => all * side, 1);
const indices = (count) => Array.from({ length: count }, (_, index) => index);

/* The patches with the lowest scores first; ties go to the earlier patch. */
const order = (scores) => indices(scores.length).sort((a, b) => scores[a] - scores[b] || a - b);

/* Scores of the patches of a grid [rows, columns]; those with the lowest stay visible. */
const SCORES = {
  random: (grid, random) => indices(product(grid)).map(() => random()),

  /* Cells of 2 x 2: positions with an even sum first, each parity in row-major order. */
  grid: ([rows, columns], random) => indices(rows * columns).map((patch) => {
    const row = Math.floor(patch / columns) % 2;
    const column = (patch % columns) % 2;
    return ((row + column) % 2) * 2 + row + random();
  }),

  /* Rectangles of 8% to 30% of the image, with aspect ratios from 0.3 to 1 / 0.3; earlier ones are
     masked first. */
  block: ([rows, columns], random, { blocks }) => {
    const length = rows * columns;
    const first = Array(length).fill(blocks);
    for (let block = 0; block < blocks; block++) {
      const volume = (0.08 + 0.22 * random()) * length;
      const aspect = Math.exp((2 * random() - 1) * -Math.log(0.3));
      const side = (value, most) => Math.min(Math.max(Math.round(value), 1), most);
      const height = side(Math.sqrt(volume * aspect), rows);
      const width = side(Math.sqrt(volume / aspect), columns);
      const top = Math.floor(random() * (rows - height + 1));
      const left = Math.floor(random() * (columns - width + 1));
      for (let row = top; row < top + height; row++)
        for (let column = left; column < left + width; column++) {
          const patch = row * columns + column;
          first[patch] = Math.min(first[patch], block);
        }
    }
    return first.map((block, patch) =>
      blocks - block + (block < blocks ? 1 - patch / length : random()));
  },
};

/* Which patches a mask hides, L booleans in row-major order.

   mask: { name, unit: rows and columns of the patches that are masked as one, and the strategy's
     own options }
   grid: rows and columns of patches
   visible: number of patches that stay visible
   random: numbers in [0, 1) */
export function sampled({ name, unit, ...options }, grid, visible, random) {
  const coarse = grid.map((side, axis) => side / unit[axis]);
  const ranks = [];
  order(SCORES[name](coarse, random, options)).forEach((cell, rank) => { ranks[cell] = rank; });
  const scores = indices(product(grid)).map((patch) => {
    const row = Math.floor(Math.floor(patch / grid[1]) / unit[0]);
    return ranks[row * coarse[1] + Math.floor((patch % grid[1]) / unit[1])];
  });
  const hidden = Array(scores.length).fill(true);
  for (const patch of order(scores).slice(0, visible)) hidden[patch] = false;
  return hidden;
}
