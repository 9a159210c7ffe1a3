// Products of panels: a few rows of A times a few vectors of B, the results in registers; threads, and
// memory for results.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Index = int64_t;

// Floats in a vector register, and rows of a panel of two vectors that fit the registers; of one
// vector, twice as many.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 14;
#elif defined(__AVX__)
constexpr int kLanes = 8, kRows = 6;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kRows = 12;
#else
constexpr int kLanes = 4, kRows = 6;
#endif

Index CeilDiv(Index a, Index b) { return (a + b - 1) / b; }

// Terms that a panel adds up: for each i in [0, count), sum over k < length.
struct Terms {
  const float* const* a;
  const float* const* b;
  Index count;
  Index length;
};

// out[r][j] (+)= sum_i sum_k a[i][r * row_step + k * step] * b[i][k * b_step + j]
//
// with `rows_adjacent`: row_step = 1, and `stride` is step; otherwise step = 1 and `stride` is
// row_step.
template <int lanes, int vectors, int rows, bool rows_adjacent>
void Panel(const Terms& terms, Index stride, Index b_step, float* out, Index out_step,
           bool accumulate) {
  typedef float Vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  Vector sum[rows][vectors];
#pragma GCC unroll 32
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      sum[r][v] = accumulate ? *reinterpret_cast<Vector*>(out + r * out_step + v * lanes)
                             : Vector{};
    }
  }
  for (Index i = 0; i < terms.count; ++i) {
    const float* a = terms.a[i];
    const float* b = terms.b[i];
#pragma GCC unroll 4
    for (Index k = 0; k < terms.length; ++k) {
      Vector right[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        right[v] = *reinterpret_cast<const Vector*>(b + k * b_step + v * lanes);
      }
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) {
        const float left = rows_adjacent ? a[k * stride + r] : a[r * stride + k];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sum[r][v] += left * right[v];
      }
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      *reinterpret_cast<Vector*>(out + r * out_step + v * lanes) = sum[r][v];
    }
  }
}

// The convolution with a window 3 wide: an input pixel is loaded once for the three output pixels
// that it acts on.
//
// out[r][j] = sum_i sum_t sum_c a[i][(r + t) * channels + c] * b[i][(t * channels + c) * lanes + j]
template <int lanes, int rows>
void SlidingPanel(const Terms& terms, Index channels, Index, float* out, Index out_step, bool) {
  typedef float Vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  Vector sum[rows] = {};
  for (Index i = 0; i < terms.count; ++i) {
    const float* a = terms.a[i];
    const float* b = terms.b[i];
    for (Index c = 0; c < channels; ++c) {
      const auto at = [&](Index tap) {
        return *reinterpret_cast<const Vector*>(b + (tap * channels + c) * lanes);
      };
      const Vector right[3] = {at(0), at(1), at(2)};
#pragma GCC unroll 32
      for (int r = 0; r < rows + 2; ++r) {
        const float left = a[r * channels + c];
#pragma GCC unroll 3
        for (int tap = 0; tap < 3; ++tap) {
          if (r - tap >= 0 && r - tap < rows) sum[r - tap] += left * right[tap];
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < rows; ++r) *reinterpret_cast<Vector*>(out + r * out_step) = sum[r];
}

using PanelFunction = void (*)(const Terms&, Index, Index, float*, Index, bool);

// Panels of one vector layout, by their number of rows.
struct Panels {
  Index columns;
  Index max_rows;
  PanelFunction by_rows[2 * kRows + 1];

  // Rows of equal panels, the last one apart, that make up `count`.
  Index Step(Index count) const { return CeilDiv(count, CeilDiv(count, max_rows)); }
};

template <int lanes, int vectors, bool rows_adjacent, int... rows>
Panels MakePanels(std::integer_sequence<int, rows...>) {
  return {lanes * vectors,
          sizeof...(rows),
          {nullptr, Panel<lanes, vectors, rows + 1, rows_adjacent>...}};
}

template <int lanes, int... rows>
Panels MakeSlidingPanels(std::integer_sequence<int, rows...>) {
  return {lanes, sizeof...(rows), {nullptr, SlidingPanel<lanes, rows + 1>...}};
}

// The widest panels that divide the output channels, so that none is left over.
template <bool rows_adjacent>
const Panels& PanelsFor(Index outputs, bool sliding = false) {
  constexpr auto rows = std::make_integer_sequence<int, kRows>();
  constexpr auto twice = std::make_integer_sequence<int, 2 * kRows>();
  // Besides the sums, three vectors of the kernel and one of the input are in registers.
  constexpr auto wide = std::make_integer_sequence<int, 2 * kRows - 2>();
  static const Panels two = MakePanels<kLanes, 2, rows_adjacent>(rows);
  static const Panels one = MakePanels<kLanes, 1, rows_adjacent>(twice);
  static const Panels eight = MakePanels<8, 1, rows_adjacent>(rows);
  static const Panels four = MakePanels<4, 1, rows_adjacent>(rows);
  static const Panels single = MakePanels<1, 1, rows_adjacent>(rows);
  static const Panels sliding_one = MakeSlidingPanels<kLanes>(wide);
  static const Panels sliding_eight = MakeSlidingPanels<8>(wide);
  // With the 16 registers of AVX2 two vectors of output channels at once are faster.
  if (sliding && (kLanes != 8 || outputs % two.columns != 0)) {
    for (const Panels* panels : {&sliding_one, &sliding_eight}) {
      if (outputs % panels->columns == 0) return *panels;
    }
  }
  for (const Panels* panels : {&two, &one, &eight, &four}) {
    if (outputs % panels->columns == 0) return *panels;
  }
  return single;
}

// The kernel, a block of output channels after the other.
std::vector<float> PackedKernel(const std::vector<float>& kernel, Index terms, Index outputs, Index columns) {
  std::vector<float> packed(terms * outputs);
  for (Index block = 0; block < outputs / columns; ++block) {
    for (Index k = 0; k < terms; ++k) {
      std::memcpy(packed.data() + (block * terms + k) * columns,
                  kernel.data() + k * outputs + block * columns, columns * sizeof(float));
    }
  }
  return packed;
}

// What becomes of the sums: y = max(sum + bias, 0) * scale + shift, each (o); or y = sum without.
struct Finish {
  const float *bias = nullptr, *scale = nullptr, *shift = nullptr;

  // Of the output channels [first, first + count) of pixels next to each other.
  void operator()(const float* sums, Index sums_step, Index first, Index count, Index pixels,
                  float* to, Index to_step) const {
    Index done = 0;
    for (; done + 8 <= count; done += 8) {
      Lanes<8>(sums + done, sums_step, first + done, pixels, to + done, to_step);
    }
    for (; done < count; ++done) {
      Lanes<1>(sums + done, sums_step, first + done, pixels, to + done, to_step);
    }
  }

  template <int lanes>
  void Lanes(const float* sums, Index sums_step, Index first, Index pixels, float* to,
             Index to_step) const {
    typedef float Vector __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
    const auto at = [](const float* from) { return *reinterpret_cast<const Vector*>(from); };
    const auto put = [&](Index i, Vector v) { *reinterpret_cast<Vector*>(to + i * to_step) = v; };
    if (bias == nullptr) {
      for (Index i = 0; i < pixels; ++i) put(i, at(sums + i * sums_step));
      return;
    }
    const Vector b = at(bias + first), a = at(scale + first), c = at(shift + first), zero = {};
    for (Index i = 0; i < pixels; ++i) {
      const Vector sum = at(sums + i * sums_step) + b;
      put(i, (sum > zero ? sum : zero) * a + c);
    }
  }
};

// Runs task(0) ... task(count - 1) on the pool and the calling thread. Nobody waits for a thread
// that has not begun: the caller may itself be one of the pool's.
template <typename Task>
void ParallelFor(ffi::ThreadPool& pool, Index count, const Task& task) {
  struct Progress {
    std::atomic<Index> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    Index done = 0;
  };
  auto progress = std::make_shared<Progress>();
  const Task* const work = &task;
  auto run = [progress, count, work] {
    Index mine = 0;
    for (Index i; (i = progress->next.fetch_add(1)) < count; ++mine) (*work)(i);
    if (mine == 0) return;
    std::lock_guard<std::mutex> lock(progress->mutex);
    progress->done += mine;
    if (progress->done == count) progress->finished.notify_all();
  };
  const Index helpers = std::min<Index>(count, std::max<Index>(pool.num_threads(), 1)) - 1;
  for (Index i = 0; i < helpers; ++i) pool.Schedule(decltype(run)(run));
  run();
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->finished.wait(lock, [&] { return progress->done == count; });
}

// Wants large pages for memory that is about to be written. XLA's is new for every program that
// runs, and to make 4 KiB pages of it, one at a time, took a third of the time of a convolution.
void WantLargePages(void* memory, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = 1 << 21;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, end = (begin + bytes) / kPage * kPage;
  // It is a wish: where it is not met, nothing else changes.
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

}  // namespace
