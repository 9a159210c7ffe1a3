// Parts of levels, and levels that are pooled: little is computed, but memory that XLA takes for them
// comes in small pages.

#pragma once

#include "panels.h"

namespace {

// Rows that a thread writes one after the other.
constexpr Index kRowsAtOnce = 16;

// A part (n, *shape, c) of an array, from `start` on, of which the voxels from `begin` to `end` are
// written.
struct Wanted {
  Index n, shape[3], c, start[3], begin[3], end[3];

  // Calls work(n, z, y, row) for each row, which begins with voxel begin[2].
  template <typename Work>
  void EachRow(ffi::ThreadPool& pool, float* y, const Work& work) const {
    for (int i = 0; i < 3; ++i) {
      if (begin[i] >= end[i]) return;
    }
    WantLargePages(y, n * shape[0] * shape[1] * shape[2] * c * sizeof(float));
    const Index planes = end[0] - begin[0], chunks = CeilDiv(end[1] - begin[1], kRowsAtOnce);
    ParallelFor(pool, n * planes * chunks, [&](Index item) {
      const Index of = item / (planes * chunks), z = begin[0] + item / chunks % planes;
      const Index first = begin[1] + item % chunks * kRowsAtOnce;
      for (Index line = first; line < std::min(first + kRowsAtOnce, end[1]); ++line) {
        const Index row = (of * shape[0] + z) * shape[1] + line;
        work(of, z, line, y + (row * shape[2] + begin[2]) * c);
      }
    });
  }
};

// y is a part of x (n, *all, c).
void Cut(ffi::ThreadPool& pool, const float* x, const Index (&all)[3], const Wanted& part, float* y) {
  part.EachRow(pool, y, [&](Index n, Index z, Index line, float* to) {
    const Index row = (n * all[0] + part.start[0] + z) * all[1] + part.start[1] + line;
    const float* const from = x + (row * all[2] + part.start[2] + part.begin[2]) * part.c;
    std::copy_n(from, (part.end[2] - part.begin[2]) * part.c, to);
  });
}

// y holds the highest of each block of `step` voxels of x (n, *all, c), all of them.
void MaxPool(ffi::ThreadPool& pool, const float* x, const Index (&all)[3], const Index (&step)[3],
             const Wanted& part, float* y) {
  const Index c = part.c, pixels = part.end[2] - part.begin[2];
  part.EachRow(pool, y, [&](Index n, Index z, Index line, float* to) {
    const Index size = pixels * step[2] * c;
    thread_local std::vector<float> highest;
    const auto row = [&](Index i) {
      const Index plane = n * all[0] + z * step[0] + i / step[1];
      const Index of_it = plane * all[1] + line * step[1] + i % step[1];
      return x + (of_it * all[2] + part.begin[2] * step[2]) * c;
    };
    highest.assign(row(0), row(0) + size);
    float* const most = highest.data();
    for (Index i = 1; i < step[0] * step[1]; ++i) {
      const float* const from = row(i);
      for (Index j = 0; j < size; ++j) most[j] = from[j] > most[j] ? from[j] : most[j];
    }
    for (Index pixel = 0; pixel < pixels; ++pixel, to += c) {
      const float* from = highest.data() + pixel * step[2] * c;
      std::copy_n(from, c, to);
      for (Index i = 1; i < step[2]; ++i) {
        from += c;
        for (Index k = 0; k < c; ++k) to[k] = from[k] > to[k] ? from[k] : to[k];
      }
    }
  });
}

}  // namespace
