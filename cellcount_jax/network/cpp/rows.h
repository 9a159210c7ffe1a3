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

// An image whose channels are those of one array, or of two, one after the other. Its first planes may
// be in other arrays, `before` these.
struct Image {
  const float* parts[2];
  Index channels[2];
  // The planes [begin, end) are there, others count as zeros.
  Index begin, end;
  // `count` planes come before those of a part, the first of them is plane -lead.
  const float* before[2] = {};
  Index count[2] = {}, lead = 0;

  bool Has(Index z) const { return z >= begin && z < end; }

  // A part of a plane that is there, (all_h, all_w, channels).
  const float* Plane(const Shape& s, Index part, Index n, Index z) const {
    const Index size = s.all_h * s.all_w * channels[part], own = z + lead - count[part];
    return own < 0 ? before[part] + ((n + 1) * count[part] + own) * size
                   : parts[part] + (n * s.all_d + own) * size;
  }
};

// Rows [y0, y0 + rows) of a plane with zeros around, of channels [c0, c0 + channels): (rows,
// w + kw - 1, channels), zeros where the plane or the row is outside of the image.
void PaddedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index rows, Index c0,
                Index channels, float* to) {
  const Index row = s.padded_width() * channels;
  std::fill_n(to, rows * row, 0.0f);
  if (!x.Has(z)) return;
  for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
    const Index all = x.channels[part];
    const Index begin = std::max(c0 - before, Index{0});
    const Index end = std::min(c0 + channels - before, all);
    if (begin >= end) continue;
    const float* const plane = x.Plane(s, part, n, z);
    for (Index i = 0; i < rows; ++i) {
      if (y0 + i < 0 || y0 + i >= s.h) continue;
      const float* const from = plane + (y0 + i) * s.all_w * all + begin;
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
