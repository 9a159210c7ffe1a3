// The gradient of the convolution in its kernel. The rows of a panel are input channels; the sum runs
// over pixels, with half of the products saved where the kernel is three rows high.

#pragma once

#include "mixed_rows.h"

namespace {

// The sums of the slices in floats, which are to stay in the cache of the processor; input channels
// that are padded at a time.
constexpr Index kSums = 1 << 21;
constexpr Index kSlices = 16;
constexpr Index kGroup = 32;

// Four rows of dy below each other, g0 to g3, act with six input rows on a kernel three rows high. With
// the mixed rows t of the input, see mixed_rows.h, those of dy,
//
//   u = (g0 / 4,  -(g0 + g1 + g2 + g3) / 6,  -(g0 - g1 + g2 - g3) / 6,
//        (g0 + 2 g1 + 4 g2 + 8 g3) / 24,  (g0 - 2 g1 + 4 g2 - 8 g3) / 24,  g3)
//
// and m the sums of the products of a row of t and its u, the gradients of the kernel's rows are
//
//   (m0 + m1 + m2 + m3 + m4,  m1 - m2 + 2 (m3 - m4),  m1 + m2 + 4 (m3 + m4) + m5)
//
// six products in place of twelve (F(3, 4) of Lavin and Gray 2016).

// Of `lanes` channels of rows of pixels; `step` floats from pixel to pixel, and `line` between rows.
template <int lanes>
void MixGradients(const float* const (&g)[kTall], Index pixels, Index from_step, float* u,
                  Index to_step, Index line) {
  typedef float Vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  for (Index i = 0; i < pixels; ++i) {
    const auto at = [&](int row) {
      return *reinterpret_cast<const Vector*>(g[row] + i * from_step);
    };
    const auto put = [&](int row, Vector v) {
      *reinterpret_cast<Vector*>(u + row * line + i * to_step) = v;
    };
    const Vector g0 = at(0), g1 = at(1), g2 = at(2), g3 = at(3);
    const Vector even = g0 + g2, odd = g1 + g3, wide = g0 + 4 * g2, wide_odd = 2 * g1 + 8 * g3;
    put(0, g0 * (1.0f / 4));
    put(1, (even + odd) * (-1.0f / 6));
    put(2, (even - odd) * (-1.0f / 6));
    put(3, (wide + wide_odd) * (1.0f / 24));
    put(4, (wide - wide_odd) * (1.0f / 24));
    put(5, g3);
  }
}

// The mixed rows of the rows [y0, y0 + rows) of a plane of dy: (o / columns, count, kMixed, w, columns)
// of `count` times kTall rows, the last ones of which may be zeros.
void MixedGradients(const Shape& s, const float* dy, Index plane, Index y0, Index rows, Index columns,
                    float* to) {
  const Index count = CeilDiv(rows, kTall), line = s.w * columns;
  thread_local std::vector<float> zeros;
  zeros.resize(s.w * s.o);
  for (Index tall = 0; tall < count; ++tall) {
    const float* g[kTall];
    for (Index i = 0; i < kTall; ++i) {
      const Index row = kTall * tall + i;
      g[i] = row < rows ? dy + (plane * s.h + y0 + row) * s.w * s.o : zeros.data();
    }
    for (Index o = 0; o < s.o;) {
      float* const u = to + (o / columns * count + tall) * kMixed * line + o % columns;
      const Index lanes = columns % 8 == 0 ? 8 : 1;
      (lanes == 8 ? MixGradients<8> : MixGradients<1>)(g, s.w, s.o, u, columns, line);
      for (const float*& of_row : g) of_row += lanes;
      o += lanes;
    }
  }
}

void WeightGradient(ffi::ThreadPool& pool, const Shape& s, const float* x, const float* dy,
                    float* dw) {
  const Index line = s.kw * s.c * s.o;  // of the kernel
  if (line * s.kd * s.kh == 0) return;
  if (s.n * s.d * s.h * s.w == 0) {
    std::fill_n(dw, s.kd * s.kh * line, 0.0f);
    return;
  }
  const Seen seen_by{s};
  const bool mixed = seen_by.mixed;
  const Index parts = mixed ? kMixed : s.kh;
  const Index taps = s.kd * parts * s.kw, size = taps * s.c * s.o;
  const Panels& panels = PanelsFor<true>(s.o);
  const Index groups = CeilDiv(s.c, kGroup), wide = s.padded_width();
  const Index chunk = seen_by.Rows(kScratch / (s.kd * wide * std::min(s.c, kGroup)));
  const Index chunks = CeilDiv(s.h, chunk);
  // Slices of the pixels have sums of their own, which are added up in the end.
  const Index units = s.n * s.d * chunks;
  const Index slices = std::clamp<Index>(std::min(kSums / size, units), 1, kSlices);
  std::vector<float> all(slices * size);
  ParallelFor(pool, slices * groups, [&](Index item) {
    const Index slice = item / groups, c0 = item % groups * kGroup;
    const Index channels = std::min(kGroup, s.c - c0), row_size = wide * channels;
    const Index step = panels.Step(channels);
    float* const sums = all.data() + slice * size;
    const Index first = units * slice / slices, last = units * (slice + 1) / slices;
    std::vector<const float*> a, b;
    thread_local std::vector<float> scratch, gradients;
    Index filled = 0;
    for (Index unit = first; unit < last; ++unit) {
      const Index n = unit / (s.d * chunks), y0 = unit / s.d % chunks * chunk, z = unit % s.d;
      const Index rows = std::min(chunk, s.h - y0), count = CeilDiv(rows, seen_by.tall);
      const Index lines = seen_by.Lines(rows);
      scratch.resize(s.kd * lines * row_size);
      // The planes that are seen, each in the place of the one that is not seen any more.
      const auto seen = [&](Index i) {
        return scratch.data() + (i + s.kd) % s.kd * lines * row_size;
      };
      const Image image{{x, x}, {s.c, 0}, 0, s.d};
      if (unit == first || z == 0) filled = z - s.kd / 2;
      for (; filled <= z + s.kd / 2; ++filled) {
        seen_by.Fill(image, n, filled, y0, rows, c0, channels, seen(filled));
      }
      if (mixed) {
        gradients.resize(lines * s.w * s.o);
        MixedGradients(s, dy, n * s.d + z, y0, rows, panels.columns, gradients.data());
      }
      a.resize(count);
      b.resize(count);
      for (Index o0 = 0; o0 < s.o; o0 += panels.columns) {
        for (Index tap = 0; tap < taps; ++tap) {
          const Index tz = tap / (parts * s.kw), part = tap / s.kw % parts, tx = tap % s.kw;
          for (Index i = 0; i < count; ++i) {
            const Index at = mixed ? i * kMixed + part : i + part;
            a[i] = seen(z - s.kd / 2 + tz) + at * row_size + tx * channels;
            b[i] = mixed ? gradients.data() + (o0 * lines + at * panels.columns) * s.w
                          : dy + ((n * s.d + z) * s.h + y0 + i) * s.w * s.o + o0;
          }
          for (Index c = 0; c < channels; c += step) {
            float* const out = sums + (tap * s.c + c0 + c) * s.o + o0;
            panels.by_rows[std::min(step, channels - c)]({a.data(), b.data(), count, s.w}, channels,
                                                         mixed ? panels.columns : s.o, out, s.o,
                                                         unit > first);
            for (Index i = 0; i < count; ++i) a[i] += step;
          }
        }
      }
    }
  });
  float* const total = all.data();
  for (Index slice = 1; slice < slices; ++slice) {
    const float* const sums = total + slice * size;
    for (Index i = 0; i < size; ++i) total[i] += sums[i];
  }
  if (!mixed) {
    std::copy_n(total, size, dw);
    return;
  }
  for (Index tap = 0; tap < s.kd; ++tap) {
    const float *const m0 = total + tap * kMixed * line, *const m1 = m0 + line;
    const float *const m2 = m1 + line, *const m3 = m2 + line, *const m4 = m3 + line;
    const float* const m5 = m4 + line;
    float* const g = dw + tap * 3 * line;
    for (Index i = 0; i < line; ++i) {
      const float even = m1[i] + m2[i], odd = m1[i] - m2[i], wide = m3[i] + m4[i];
      g[i] = m0[i] + even + wide;
      g[line + i] = odd + 2 * (m3[i] - m4[i]);
      g[2 * line + i] = even + 4 * wide + m5[i];
    }
  }
}

}  // namespace
