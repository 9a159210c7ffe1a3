// The transposed convolution whose stride is its window: each voxel of a coarse level makes a block of
// voxels by a matrix product. The rows of a panel are pixels next to each other.

#pragma once

#include "resizing.h"

namespace {

struct Upsampling {
  // Of the coarse level, and its channels.
  Index all[3], c;
  // Voxels of a block along each axis.
  Index step[3];
};

// x (n, *all, c), kernel (step[0], step[1], c, step[2], o), y a part of all blocks.
void Upsample(ffi::ThreadPool& pool, const Upsampling& u, const float* x, const float* kernel,
              const Finish& finish, const Wanted& part, float* y) {
  const Index o = part.c, outputs = u.step[2] * o, lines = u.step[0] * u.step[1];
  const Panels& panels = PanelsFor<false>(outputs);
  const Index columns = panels.columns;
  std::vector<float> packed;
  for (Index i = 0; i < lines; ++i) {
    const float* const from = kernel + i * u.c * outputs;
    const auto of_line = PackedKernel({from, from + u.c * outputs}, u.c, outputs, columns);
    packed.insert(packed.end(), of_line.begin(), of_line.end());
  }
  // The pixels of a row whose blocks are wanted.
  const Index x0 = part.start[2] + part.begin[2], x1 = part.start[2] + part.end[2];
  const Index first = x0 / u.step[2], pixels = CeilDiv(x1, u.step[2]) - first;
  part.EachRow(pool, y, [&](Index n, Index z, Index line, float* to) {
    z += part.start[0], line += part.start[1];
    thread_local std::vector<float> row;
    row.resize(pixels * outputs);
    const Index of_plane = n * u.all[0] + z / u.step[0];
    const Index tap = z % u.step[0] * u.step[1] + line % u.step[1];
    const Index begin = (of_plane * u.all[1] + line / u.step[1]) * u.all[2] + first;
    const Index step = panels.Step(pixels);
    for (Index at = 0; at < pixels; at += step) {
      const Index count = std::min(step, pixels - at);
      const float* const a = x + (begin + at) * u.c;
      for (Index block = 0; block < outputs; block += columns) {
        const float* const b = packed.data() + (tap * outputs + block) * u.c;
        panels.by_rows[count]({&a, &b, 1, u.c}, u.c, columns, row.data() + at * outputs + block,
                              outputs, false);
      }
    }
    finish(row.data() + (x0 - first * u.step[2]) * o, o, 0, o, x1 - x0, to, o);
  });
}

}  // namespace
