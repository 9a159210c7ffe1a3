// The convolution with stride 1. The rows of a panel are pixels next to each other; the sum runs over
// (kw, c), which lie next to each other in memory, with half of the products saved where the kernel is
// three rows high.

#pragma once

#include "mixed_rows.h"

namespace {

// Planes of the output that a thread computes one after the other, an even number.
constexpr Index kSlab = 16;

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
  const Seen seen_by{s};
  const bool mixed = seen_by.mixed;
  // Each mixed row is one line of the kernel.
  const Index tall = seen_by.tall, parts = mixed ? kMixed : 1, lines = mixed ? 1 : s.kh;
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
  const Index chunk = seen_by.Rows(kScratch / (taps * line));
  const Index chunks = CeilDiv(s.h, chunk), slabs = CeilDiv(s.d, kSlab);
  ParallelFor(pool, s.n * slabs * chunks, [&](Index item) {
    const Index n = item / (slabs * chunks), y0 = item % chunks * chunk;
    const Index slab = item / chunks % slabs * kSlab;
    const Index first_plane = std::max(slab, x.begin);
    const Index last_plane = std::min({slab + kSlab, s.d, x.end});
    if (first_plane >= last_plane) return;
    const Index rows = std::min(chunk, s.h - y0), plane_size = seen_by.Lines(rows) * line;
    thread_local std::vector<float> scratch;
    scratch.resize(taps * plane_size);
    // The planes that are seen, each in the place of the one that is not seen any more.
    const auto seen = [&](Index z) { return scratch.data() + (z + s.kd) % taps * plane_size; };
    std::vector<const float*> a(taps * lines), b(taps * lines);
    float sums[kMixed][kRows * 2 * kLanes];
    Index filled = first_plane - s.kd / 2;
    for (Index z = first_plane; z < last_plane; z += group) {
      for (; filled < z - s.kd / 2 + taps; ++filled) {
        seen_by.Fill(x, n, filled, y0, rows, 0, s.c, seen(filled));
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
