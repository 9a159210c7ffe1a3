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

  // Calls work(from, all, shared, at) for each array that has some of the channels [c0, c0 + count) of
  // a plane that is there: the first of them, the channels of the array, the number of those that it
  // has, and the place of the first one in [0, count).
  template <typename Work>
  void EachPart(const Shape& s, Index n, Index z, Index c0, Index count, const Work& work) const {
    for (Index part = 0, earlier = 0; part < 2; earlier += channels[part++]) {
      const Index all = channels[part];
      const Index first = std::max(c0 - earlier, Index{0});
      const Index last = std::min(c0 + count - earlier, all);
      if (first < last) work(Plane(s, part, n, z) + first, all, last - first, earlier + first - c0);
    }
  }
};

// Rows [y0, y0 + rows) of a plane with zeros around, of channels [c0, c0 + channels): (rows,
// w + kw - 1, channels), zeros where the plane or the row is outside of the image.
void PaddedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index rows, Index c0,
                Index channels, float* to) {
  const Index row = s.padded_width() * channels;
  std::fill_n(to, rows * row, 0.0f);
  if (!x.Has(z)) return;
  x.EachPart(s, n, z, c0, channels, [&](const float* plane, Index all, Index shared, Index at) {
    for (Index i = 0; i < rows; ++i) {
      if (y0 + i < 0 || y0 + i >= s.h) continue;
      const float* const from = plane + (y0 + i) * s.all_w * all;
      float* const into = to + i * row + s.kw / 2 * channels + at;
      if (shared == channels && channels == all) {
        std::memcpy(into, from, s.w * channels * sizeof(float));
        continue;
      }
      for (Index j = 0; j < s.w; ++j) {
        std::memcpy(into + j * channels, from + j * all, shared * sizeof(float));
      }
    }
  });
}

}  // namespace
