// The gradient of the convolution in its kernel. The rows of a panel are input channels; the sum runs
// over pixels.

#pragma once

#include "rows.h"

namespace {

// The sums of the slices in floats, which are to stay in the cache of the processor; input channels
// that are padded at a time.
constexpr Index kSums = 1 << 21;
constexpr Index kSlices = 16;
constexpr Index kGroup = 32;

void WeightGradient(ffi::ThreadPool& pool, const Shape& s, const float* x, const float* dy,
                    float* dw) {
  const Index taps = s.kd * s.kh * s.kw, size = taps * s.c * s.o;
  if (size == 0) return;
  if (s.n * s.d * s.h * s.w == 0) {
    std::fill_n(dw, size, 0.0f);
    return;
  }
  const Panels& panels = PanelsFor<true>(s.o);
  const Index groups = CeilDiv(s.c, kGroup);
  const Index chunk = s.RowsPerChunk(std::min(s.c, kGroup)), chunks = CeilDiv(s.h, chunk);
  // Slices of the pixels have sums of their own, which are added up in the end.
  const Index units = s.n * s.d * chunks;
  const Index slices = std::clamp<Index>(std::min(kSums / size, units), 1, kSlices);
  std::vector<float> others((slices - 1) * size);
  ParallelFor(pool, slices * groups, [&](Index item) {
    const Index slice = item / groups, c0 = item % groups * kGroup;
    const Index channels = std::min(kGroup, s.c - c0);
    const Index step = panels.Step(channels);
    float* const sums = slice == 0 ? dw : others.data() + (slice - 1) * size;
    const Index first = units * slice / slices, last = units * (slice + 1) / slices;
    std::vector<const float*> a, b;
    thread_local std::vector<float> padded;
    for (Index unit = first; unit < last; ++unit) {
      const Index plane = unit / chunks, y0 = unit % chunks * chunk;
      const Index rows = std::min(chunk, s.h - y0), height = rows + s.kh - 1;
      padded.resize(s.kd * height * s.padded_width() * channels);
      for (Index tap = 0; tap < s.kd; ++tap) {
        PaddedRows(s, {{x, x}, {s.c, 0}}, plane / s.d, plane % s.d - s.kd / 2 + tap, y0 - s.kh / 2,
                   height, c0, channels,
                   padded.data() + tap * height * s.padded_width() * channels);
      }
      a.resize(rows);
      b.resize(rows);
      for (Index o0 = 0; o0 < s.o; o0 += panels.columns) {
        for (Index row = 0; row < rows; ++row) {
          b[row] = dy + (plane * s.h + y0 + row) * s.w * s.o + o0;
        }
        for (Index tap = 0; tap < taps; ++tap) {
          const Index tz = tap / (s.kh * s.kw), ty = tap / s.kw % s.kh, tx = tap % s.kw;
          for (Index c = 0; c < channels; c += step) {
            for (Index row = 0; row < rows; ++row) {
              const Index line = tz * height + row + ty;
              a[row] = padded.data() + (line * s.padded_width() + tx) * channels + c;
            }
            float* const out = sums + (tap * s.c + c0 + c) * s.o + o0;
            panels.by_rows[std::min(step, channels - c)]({a.data(), b.data(), rows, s.w}, channels,
                                                         s.o, out, s.o, unit > first);
          }
        }
      }
    }
  });
  for (Index slice = 1; slice < slices; ++slice) {
    const float* const sums = others.data() + (slice - 1) * size;
    for (Index i = 0; i < size; ++i) dw[i] += sums[i];
  }
}

}  // namespace
