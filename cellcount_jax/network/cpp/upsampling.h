// The transposed convolution whose stride is its window: each voxel of a coarse level makes a block of
// voxels by a matrix product. The rows of a panel are pixels next to each other.

#pragma once

#include "panels.h"

namespace {

// Rows of the result that a thread computes one after the other.
constexpr Index kRowsAtOnce = 8;

struct Upsampling {
  // Of the coarse level, and the output channels.
  Index n, d, h, w, c, o;
  // Voxels of a block along each axis; a part of all blocks is computed, this large, from here on.
  Index step[3], part[3], start[3];
  // What of the part is computed.
  Index begin[3], end[3];
};

// x (n, d, h, w, c), kernel (step[0], step[1], c, step[2], o), y (n, *part, o).
void Upsample(ffi::ThreadPool& pool, const Upsampling& u, const float* x, const float* kernel,
              const Finish& finish, float* y) {
  for (int i = 0; i < 3; ++i) {
    if (u.begin[i] >= u.end[i]) return;
  }
  const Index outputs = u.step[2] * u.o, lines = u.step[0] * u.step[1];
  const Panels& panels = PanelsFor<false>(outputs);
  const Index columns = panels.columns;
  std::vector<float> packed;
  for (Index i = 0; i < lines; ++i) {
    const float* const from = kernel + i * u.c * outputs;
    const auto of_line = PackedKernel({from, from + u.c * outputs}, u.c, outputs, columns);
    packed.insert(packed.end(), of_line.begin(), of_line.end());
  }
  // The pixels of a row whose blocks are wanted.
  const Index first = (u.start[2] + u.begin[2]) / u.step[2];
  const Index pixels = CeilDiv(u.start[2] + u.end[2], u.step[2]) - first;
  const Index step = panels.Step(pixels), before = u.start[2] + u.begin[2] - first * u.step[2];
  const Index planes = u.end[0] - u.begin[0], rows = u.end[1] - u.begin[1];
  const Index chunks = CeilDiv(rows, kRowsAtOnce);
  ParallelFor(pool, u.n * planes * chunks, [&](Index item) {
    const Index n = item / (planes * chunks), z = u.begin[0] + item / chunks % planes;
    const Index y0 = u.begin[1] + item % chunks * kRowsAtOnce;
    thread_local std::vector<float> row;
    row.resize(pixels * outputs);
    for (Index y1 = y0; y1 < std::min(y0 + kRowsAtOnce, u.end[1]); ++y1) {
      const Index plane = u.start[0] + z, line = u.start[1] + y1;
      const Index of_plane = n * u.d + plane / u.step[0];
      const Index tap = plane % u.step[0] * u.step[1] + line % u.step[1];
      const float* const from = x + ((of_plane * u.h + line / u.step[1]) * u.w + first) * u.c;
      for (Index at = 0; at < pixels; at += step) {
        const Index count = std::min(step, pixels - at);
        const float* const a = from + at * u.c;
        for (Index block = 0; block < outputs; block += columns) {
          const float* const b = packed.data() + (tap * outputs + block) * u.c;
          panels.by_rows[count]({&a, &b, 1, u.c}, u.c, columns, row.data() + at * outputs + block,
                                outputs, false);
        }
      }
      const Index to = ((n * u.part[0] + z) * u.part[1] + y1) * u.part[2] + u.begin[2];
      finish(row.data() + before * u.o, u.o, 0, u.o, u.end[2] - u.begin[2], y + to * u.o, u.o);
    }
  });
}

}  // namespace
