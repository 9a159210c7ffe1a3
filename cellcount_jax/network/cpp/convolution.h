// The convolution with stride 1. The rows of a panel are pixels next to each other; the sum runs over
// (kw, c), which lie next to each other in memory, with a third of the products saved where the
// kernel is three rows high.

#pragma once

#include "rows.h"

namespace {

// Planes of the output that a thread computes one after the other, an even number.
constexpr Index kSlab = 16;

// Two output rows below each other see four input rows, d0 to d3, by a kernel of three, g0 to g2.
// With the mixed rows and kernels
//
//   t = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
//   k = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
//
// and m the four convolutions of a row of t with its k, they are (m0 + m1 + m2, m1 - m2 - m3): four
// products in place of six (Winograd 1980; F(2, 3) of Lavin and Gray 2016).
constexpr Index kMixed = 4;

// Mixed rows, `step` apart, of `count` floats of each of four rows.
void Mix(const float* __restrict d0, const float* __restrict d1, const float* __restrict d2,
         const float* __restrict d3, Index count, float* __restrict t, Index step) {
  for (Index i = 0; i < count; ++i) t[i] = d0[i] - d2[i];
  for (Index i = 0; i < count; ++i) t[step + i] = d1[i] + d2[i];
  for (Index i = 0; i < count; ++i) t[2 * step + i] = d2[i] - d1[i];
  for (Index i = 0; i < count; ++i) t[3 * step + i] = d1[i] - d3[i];
}

// The mixed rows of pairs of output rows, the first of which is y0, with zeros around: (pairs,
// kMixed, w + kw - 1, c).
void MixedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index pairs, float* to) {
  const Index row = s.padded_width() * s.c, side = s.kw / 2 * s.c;
  if (z < 0 || z >= s.d) {
    std::fill_n(to, pairs * kMixed * row, 0.0f);
    return;
  }
  thread_local std::vector<float> zeros;
  zeros.resize(s.w * s.c);
  for (Index i = 0; i < pairs * kMixed; ++i) {
    std::fill_n(to + i * row, side, 0.0f);
    std::fill_n(to + (i + 1) * row - side, side, 0.0f);
  }
  for (Index pair = 0; pair < pairs; ++pair) {
    for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
      const Index all = x.channels[part];
      const auto input = [&](Index i) {
        const Index y = y0 + 2 * pair - 1 + i;
        return y < 0 || y >= s.h ? zeros.data() : x.parts[part] + s.Row(n * s.d + z, y) * all;
      };
      const float *d0 = input(0), *d1 = input(1), *d2 = input(2), *d3 = input(3);
      float* const t = to + pair * kMixed * row + side + before;
      if (all == s.c) {
        Mix(d0, d1, d2, d3, s.w * s.c, t, row);
        continue;
      }
      for (Index j = 0; j < s.w * all; j += all) {
        Mix(d0 + j, d1 + j, d2 + j, d3 + j, all, t + j / all * s.c, row);
      }
    }
  }
}

// The kernels of the mixed rows, (kMixed, kd, kw, c, o), of a kernel three rows high.
std::vector<float> MixedKernel(const Shape& s, const float* kernel) {
  const Index line = s.kw * s.c * s.o;
  std::vector<float> mixed(kMixed * s.kd * line);
  for (Index tap = 0; tap < s.kd; ++tap) {
    const float *const g0 = kernel + tap * 3 * line, *const g1 = g0 + line, *const g2 = g1 + line;
    for (Index i = 0; i < line; ++i) {
      const float even = (g0[i] + g2[i]) / 2, odd = g1[i] / 2;
      const float rows[kMixed] = {g0[i], even + odd, even - odd, g2[i]};
      for (Index j = 0; j < kMixed; ++j) mixed[(j * s.kd + tap) * line + i] = rows[j];
    }
  }
  return mixed;
}

// The kernel (parts, kd, terms, o) of a convolution whose output channels are those of `group` planes
// behind each other, and zeros up to `outputs`: it is group - 1 planes deeper, (parts,
// kd + group - 1, terms, outputs), and a plane that an output plane does not see is 0 for it.
std::vector<float> GroupedKernel(const std::vector<float>& kernel, Index parts, Index kd,
                                 Index terms, Index o, Index group, Index outputs) {
  const Index deep = kd + group - 1;
  std::vector<float> grouped(parts * deep * terms * outputs);
  for (Index tap = 0; tap < parts * kd; ++tap) {
    for (Index plane = 0; plane < group; ++plane) {
      const Index to = (tap / kd * deep + tap % kd + plane) * terms;
      for (Index k = 0; k < terms; ++k) {
        std::memcpy(grouped.data() + (to + k) * outputs + plane * o,
                    kernel.data() + (tap * terms + k) * o, o * sizeof(float));
      }
    }
  }
  return grouped;
}

void Convolve(ffi::ThreadPool& pool, const Shape& s, const Image& x, const float* kernel,
              const Finish& finish, float* y) {
  if (s.n * s.d * s.h * s.w * s.o == 0) return;
  // Output rows in pairs, by mixed rows, each of which is one line of the kernel. With few input
  // channels the products are not what takes the time.
  const bool paired = s.kh == 3 && s.c >= 4;
  const Index pair = paired ? 2 : 1, parts = paired ? kMixed : 1, lines = paired ? 1 : s.kh;
  // Output channels that leave half a vector empty: those of two planes together fill it, or zeros.
  const bool half = kLanes > 8 && s.o % kLanes == kLanes / 2;
  const Index group = half && s.kd == 3 && s.d > 1 ? 2 : 1, taps = s.kd + group - 1;
  const Index outputs = group * s.o + (half && group == 1 ? kLanes / 2 : 0);
  const Panels& panels = PanelsFor<false>(outputs, s.kw == 3);
  const Index columns = panels.columns, blocks = outputs / columns;
  const Index length = s.kw * s.c, size = length * columns;
  const std::vector<float> plain =
      paired ? MixedKernel(s, kernel)
             : std::vector<float>(kernel, kernel + s.kd * s.kh * length * s.o);
  const std::vector<float> packed = PackedKernel(
      GroupedKernel(plain, parts, s.kd, lines * length, s.o, group, outputs),
      parts * taps * lines * length, outputs, columns);
  const Index line = s.padded_width() * s.c, step = panels.Step(s.w);
  // Lines of a plane that `rows` output rows see, and how many rows fit the scratch memory.
  const auto height = [&](Index rows) {
    return paired ? CeilDiv(rows, 2) * kMixed : rows + s.kh - 1;
  };
  const Index fitting = kScratch / (taps * line);
  const Index chunk = std::max(paired ? fitting / kMixed * 2 : fitting - s.kh + 1, pair);
  const Index chunks = CeilDiv(s.h, chunk), slabs = CeilDiv(s.d, kSlab);
  ParallelFor(pool, s.n * slabs * chunks, [&](Index item) {
    const Index n = item / (slabs * chunks), y0 = item % chunks * chunk;
    const Index first_plane = item / chunks % slabs * kSlab;
    const Index last_plane = std::min(first_plane + kSlab, s.d);
    const Index rows = std::min(chunk, s.h - y0), plane_size = height(rows) * line;
    thread_local std::vector<float> scratch;
    scratch.resize(taps * plane_size);
    // The planes that are seen, each in the place of the one that is not seen any more.
    const auto seen = [&](Index z) { return scratch.data() + (z + s.kd) % taps * plane_size; };
    std::vector<const float*> a(taps * lines), b(taps * lines);
    float sums[kMixed][kRows * 2 * kLanes];
    Index filled = first_plane - s.kd / 2;
    for (Index z = first_plane; z < last_plane; z += group) {
      for (; filled < z - s.kd / 2 + taps; ++filled) {
        if (paired) {
          MixedRows(s, x, n, filled, y0, CeilDiv(rows, 2), seen(filled));
        } else {
          PaddedRows(s, x, n, filled, y0 - s.kh / 2, height(rows), 0, s.c, seen(filled));
        }
      }
      for (Index block = 0; block < blocks; ++block) {
        // Its channels are those of these planes of a group, which see these of the input.
        const Index upper = block * columns / s.o;
        const Index lower = std::min(((block + 1) * columns - 1) / s.o, group - 1);
        const Index count = (lower + s.kd - upper) * lines;
        // Down the rows: most of what a panel reads is in the nearest cache since the last one.
        for (Index x0 = 0; x0 < s.w; x0 += step) {
          const Index pixels = std::min(step, s.w - x0);
          for (Index row = 0; row < rows; row += pair) {
            for (Index part = 0; part < parts; ++part) {
              for (Index i = 0; i < count; ++i) {
                const Index tap = upper + i / lines, below = i % lines;
                const Index at = paired ? row / 2 * kMixed + part : row + below;
                a[i] = seen(z - s.kd / 2 + tap) + at * line + x0 * s.c;
                const Index term = ((block * parts + part) * taps + tap) * lines + below;
                b[i] = packed.data() + term * size;
              }
              panels.by_rows[pixels]({a.data(), b.data(), count, length}, s.c, columns, sums[part],
                                     columns, false);
            }
            if (paired) {
              for (Index i = 0; i < pixels * columns; ++i) {
                const float inner = sums[1][i] - sums[2][i];
                sums[0][i] += sums[1][i] + sums[2][i];
                sums[1][i] = inner - sums[3][i];
              }
            }
            for (Index plane = upper; plane <= lower && z + plane < last_plane; ++plane) {
              const Index first = std::max(block * columns - plane * s.o, Index{0});
              const Index last = std::min((block + 1) * columns - plane * s.o, s.o);
              for (Index below = 0; below < pair && row + below < rows; ++below) {
                const float* const from = sums[below] + plane * s.o + first - block * columns;
                const Index to = s.Row(n * s.d + z + plane, y0 + row + below) + x0;
                finish(from, columns, first, last - first, pixels, y + to * s.o + first, s.o);
              }
            }
          }
        }
      }
    }
  });
}

}  // namespace
