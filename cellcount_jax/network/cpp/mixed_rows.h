// What output rows see of an image: its rows, or, where the kernel is three rows high, mixtures of them
// that save half of the products.

#pragma once

#include "rows.h"

namespace {

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
  if (!x.Has(z)) {
    std::fill_n(to, count * kMixed * row, 0.0f);
    return;
  }
  thread_local std::vector<float> zeros;
  zeros.resize(s.w * s.c);
  for (Index i = 0; i < count * kMixed; ++i) {
    std::fill_n(to + i * row, side, 0.0f);
    std::fill_n(to + (i + 1) * row - side, side, 0.0f);
  }
  x.EachPart(s, n, z, c0, channels, [&](const float* plane, Index all, Index shared, Index at) {
    for (Index tall = 0; tall < count; ++tall) {
      const float* d[kMixed];
      for (Index i = 0; i < kMixed; ++i) {
        const Index y = y0 + kTall * tall - 1 + i;
        d[i] = y < 0 || y >= s.h ? zeros.data() : plane + y * s.all_w * all;
      }
      float* const t = to + tall * kMixed * row + side + at;
      if (shared == channels && channels == all) {
        Mix(d, s.w * channels, t, row);
        continue;
      }
      for (Index j = 0; j < s.w; ++j) {
        Mix(d, shared, t + j * channels, row);
        for (const float*& of_row : d) of_row += all;
      }
    }
  });
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

// The lines of a plane that output rows see: mixed rows, or the rows of the input.
struct Seen {
  const Shape& s;
  // With few input channels the products are not what takes the time.
  bool mixed = s.kh == 3 && s.c >= 4;
  // Output rows that are computed together.
  Index tall = mixed ? kTall : 1;

  Index Lines(Index rows) const {
    return mixed ? CeilDiv(rows, kTall) * kMixed : rows + s.kh - 1;
  }

  // The output rows, at least those together, that see no more than so many lines.
  Index Rows(Index lines) const {
    return std::max(mixed ? lines / kMixed * kTall : lines - s.kh + 1, tall);
  }

  // The lines of `rows` output rows from y0 on, with zeros around, of channels [c0, c0 + channels):
  // (Lines(rows), w + kw - 1, channels).
  void Fill(const Image& x, Index n, Index z, Index y0, Index rows, Index c0, Index channels,
            float* to) const {
    if (mixed) {
      MixedRows(s, x, n, z, y0, CeilDiv(rows, kTall), c0, channels, to);
    } else {
      PaddedRows(s, x, n, z, y0 - s.kh / 2, Lines(rows), c0, channels, to);
    }
  }
};

}  // namespace
