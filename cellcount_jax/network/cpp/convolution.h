// The convolution with stride 1. The rows of a panel are pixels next to each other; the sum runs over
// (kw, c), which lie next to each other in memory, with half of the products saved where the kernel is
// three rows high.

#pragma once

#include "rows.h"

namespace {

// Planes of the output that a thread computes one after the other, an even number.
constexpr Index kSlab = 16;

// Four output rows below each other see six input rows, d0 to d5, by a kernel of three, g0 to g2. With
// the mixed rows t and kernels k
//
//   t = (4 (d0 - d2) + p,  e + o,  e - o,  p + q,  p - q,  4 (d1 - d3) + d5 - d3)
//   e = d4 - 4 d2,  o = d3 - 4 d1,  p = d4 - d2,  q = 2 (d3 - d1)
//   k = (g0 / 4,  -(g0 + g1 + g2) / 6,  -(g0 - g1 + g2) / 6,
//        (g0 + 2 g1 + 4 g2) / 24,  (g0 - 2 g1 + 4 g2) / 24,  g2)
//
// and m the six convolutions of a row of t with its k, they are
//
//   (m0 + m1 + m2 + m3 + m4,  m1 - m2 + 2 (m3 - m4),  m1 + m2 + 4 (m3 + m4),
//    m1 - m2 + 8 (m3 - m4) + m5)
//
// six products in place of twelve (Winograd 1980; F(4, 3) of Lavin and Gray 2016).
constexpr Index kTall = 4, kMixed = 6;

// Mixed rows, `step` apart, of `lanes` floats of each of six rows.
template <int lanes>
void MixLanes(const float* const (&d)[kMixed], Index i, float* t, Index step) {
  typedef float Vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  const auto at = [&](int row) { return *reinterpret_cast<const Vector*>(d[row] + i); };
  const auto put = [&](int row, Vector v) { *reinterpret_cast<Vector*>(t + row * step + i) = v; };
  // Products by powers of 2 alone are exact: the same bits, whether they are added in one step or two.
  const Vector d1 = at(1), d2 = at(2), d3 = at(3), d4 = at(4);
  const Vector e = d4 - 4 * d2, o = d3 - 4 * d1, p = d4 - d2, q = 2 * (d3 - d1);
  put(0, 4 * (at(0) - d2) + p);
  put(1, e + o);
  put(2, e - o);
  put(3, p + q);
  put(4, p - q);
  put(5, 4 * (d1 - d3) + (at(5) - d3));
}

void Mix(const float* const (&d)[kMixed], Index count, float* t, Index step) {
  Index i = 0;
  for (; i + 8 <= count; i += 8) MixLanes<8>(d, i, t, step);
  for (; i < count; ++i) MixLanes<1>(d, i, t, step);
}

// The four output rows from the sums m of `count` floats, in the place of the first four.
template <Index size>
void Unmix(float (&m)[kMixed][size], Index count) {
  for (Index i = 0; i < count; ++i) {
    const float even = m[1][i] + m[2][i], odd = m[1][i] - m[2][i];
    const float wide = m[3][i] + m[4][i], wide_odd = m[3][i] - m[4][i];
    m[0][i] += even + wide;
    m[1][i] = odd + 2 * wide_odd;
    m[2][i] = even + 4 * wide;
    m[3][i] = odd + 8 * wide_odd + m[5][i];
  }
}

// The mixed rows of `count` times kTall output rows, from y0 on, with zeros around, of channels
// [c0, c0 + channels): (count, kMixed, w + kw - 1, channels).
void MixedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index count, Index c0,
               Index channels, float* to) {
  const Index row = s.padded_width() * channels, side = s.kw / 2 * channels;
  if (z < 0 || z >= s.d) {
    std::fill_n(to, count * kMixed * row, 0.0f);
    return;
  }
  thread_local std::vector<float> zeros;
  zeros.resize(s.w * s.c);
  for (Index i = 0; i < count * kMixed; ++i) {
    std::fill_n(to + i * row, side, 0.0f);
    std::fill_n(to + (i + 1) * row - side, side, 0.0f);
  }
  for (Index tall = 0; tall < count; ++tall) {
    for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
      const Index all = x.channels[part];
      const Index begin = std::max(c0 - before, Index{0});
      const Index end = std::min(c0 + channels - before, all);
      if (begin >= end) continue;
      const float* d[kMixed];
      for (Index i = 0; i < kMixed; ++i) {
        const Index y = y0 + kTall * tall - 1 + i;
        d[i] = y < 0 || y >= s.h ? zeros.data()
                                 : x.parts[part] + s.Row(n * s.d + z, y) * all + begin;
      }
      float* const t = to + tall * kMixed * row + side + before + begin - c0;
      if (end - begin == channels && channels == all) {
        Mix(d, s.w * channels, t, row);
        continue;
      }
      for (Index j = 0; j < s.w; ++j) {
        Mix(d, end - begin, t + j * channels, row);
        for (const float*& of_row : d) of_row += all;
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
      const float ends = g0[i] + g2[i], wide = g0[i] + 4 * g2[i];
      const float rows[kMixed] = {g0[i] / 4,
                                  (ends + g1[i]) / -6,
                                  (ends - g1[i]) / -6,
                                  (wide + 2 * g1[i]) / 24,
                                  (wide - 2 * g1[i]) / 24,
                                  g2[i]};
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
  // Output rows together, by mixed rows, each of which is one line of the kernel. With few input
  // channels the products are not what takes the time.
  const bool mixed = s.kh == 3 && s.c >= 4;
  const Index tall = mixed ? kTall : 1, parts = mixed ? kMixed : 1, lines = mixed ? 1 : s.kh;
  // Output channels that leave half a vector empty: those of two planes together fill it, or zeros.
  const bool half = kLanes > 8 && s.o % kLanes == kLanes / 2;
  const Index group = half && s.kd == 3 && s.d > 1 ? 2 : 1, taps = s.kd + group - 1;
  const Index outputs = group * s.o + (half && group == 1 ? kLanes / 2 : 0);
  const Panels& panels = PanelsFor<false>(outputs, s.kw == 3);
  const Index columns = panels.columns, blocks = outputs / columns;
  const Index length = s.kw * s.c, size = length * columns;
  const std::vector<float> plain =
      mixed ? MixedKernel(s, kernel)
            : std::vector<float>(kernel, kernel + s.kd * s.kh * length * s.o);
  const std::vector<float> packed = PackedKernel(
      GroupedKernel(plain, parts, s.kd, lines * length, s.o, group, outputs),
      parts * taps * lines * length, outputs, columns);
  const Index line = s.padded_width() * s.c, step = panels.Step(s.w);
  // Lines of a plane that `rows` output rows see, and how many rows fit the scratch memory.
  const auto height = [&](Index rows) {
    return mixed ? CeilDiv(rows, kTall) * kMixed : rows + s.kh - 1;
  };
  const Index fitting = kScratch / (taps * line);
  const Index chunk = std::max(mixed ? fitting / kMixed * kTall : fitting - s.kh + 1, tall);
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
        if (mixed) {
          MixedRows(s, x, n, filled, y0, CeilDiv(rows, kTall), 0, s.c, seen(filled));
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
          for (Index row = 0; row < rows; row += tall) {
            for (Index part = 0; part < parts; ++part) {
              for (Index i = 0; i < count; ++i) {
                const Index tap = upper + i / lines, below = i % lines;
                const Index at = mixed ? row / kTall * kMixed + part : row + below;
                a[i] = seen(z - s.kd / 2 + tap) + at * line + x0 * s.c;
                const Index term = ((block * parts + part) * taps + tap) * lines + below;
                b[i] = packed.data() + term * size;
              }
              panels.by_rows[pixels]({a.data(), b.data(), count, length}, s.c, columns, sums[part],
                                     columns, false);
            }
            if (mixed) Unmix(sums, pixels * columns);
            for (Index plane = upper; plane <= lower && z + plane < last_plane; ++plane) {
              const Index first = std::max(block * columns - plane * s.o, Index{0});
              const Index last = std::min((block + 1) * columns - plane * s.o, s.o);
              for (Index below = 0; below < tall && row + below < rows; ++below) {
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
