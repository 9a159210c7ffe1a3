// Rows of an image as convolutions see them, with zeros around.

#pragma once

#include "panels.h"

namespace {

// Padded rows of the input that a thread works on at a time, in floats: they are to stay in the
// cache of a core.
constexpr Index kScratch = 1 << 16;

struct Shape {
  Index n, d, h, w, c, o, kd, kh, kw;
  // Of the arrays, from their beginning the image is (d, h, w).
  Index all_d = d, all_h = h, all_w = w;

  // Where a row of the image begins, in pixels of the arrays; plane in [0, n * d).
  Index Row(Index plane, Index y) const {
    return ((plane / d * all_d + plane % d) * all_h + y) * all_w;
  }

  Index padded_width() const { return w + kw - 1; }
};

// An image whose channels are those of one array, or of two, one after the other.
struct Image {
  const float* parts[2];
  Index channels[2];
};

// Rows [y0, y0 + rows) of a plane with zeros around, of channels [c0, c0 + channels): (rows,
// w + kw - 1, channels), zeros where the plane or the row is outside of the image.
void PaddedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index rows, Index c0,
                Index channels, float* to) {
  const Index row = s.padded_width() * channels;
  std::fill_n(to, rows * row, 0.0f);
  if (z < 0 || z >= s.d) return;
  for (Index i = 0; i < rows; ++i) {
    if (y0 + i < 0 || y0 + i >= s.h) continue;
    const Index first = s.Row(n * s.d + z, y0 + i);
    for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
      const Index all = x.channels[part];
      const Index begin = std::max(c0 - before, Index{0});
      const Index end = std::min(c0 + channels - before, all);
      if (begin >= end) continue;
      const float* const from = x.parts[part] + first * all + begin;
      float* const into = to + i * row + s.kw / 2 * channels + before + begin - c0;
      if (end - begin == channels && channels == all) {
        std::memcpy(into, from, s.w * channels * sizeof(float));
        continue;
      }
      for (Index j = 0; j < s.w; ++j) {
        std::memcpy(into + j * channels, from + j * all, (end - begin) * sizeof(float));
      }
    }
  }
}

}  // namespace
