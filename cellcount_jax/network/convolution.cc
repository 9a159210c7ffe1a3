// 3D convolutions with stride 1 and zero padding for XLA's CPU backend, and their weight gradient.
//
// Arrays are float32 and channels last: x (n, d, h, w, c), kernel (kd, kh, kw, c, o) of odd
// window, y (n, d, h, w, o). A 2D convolution has d = kd = 1. The input's gradient is a
// convolution of dy with the mirrored kernel.
//
// A convolution may end with bias, ReLU and an affine map of each channel, for a network that is not
// trained any more, and x may be two arrays whose channels come one after the other.
//
// An image may fill only the beginning of its array: then the rest is as padding to it, and 0 in y.
//
// Everything is the product of a panel: a few rows of A times a few vectors of B, the results in
// registers. In the convolution the rows are pixels next to each other and the sum runs over
// (kw, c), which lie next to each other in memory; in the weight gradient the rows are input
// channels and the sum runs over pixels.
//
// The work is cut in the same pieces, and summed in the same order, whatever the number of
// threads: results are the same bits.

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

// Padded rows of the input that a thread works on at a time, and the sums of the weight
// gradient's slices, in floats: they are to stay in the cache of a core, and of the processor.
constexpr Index kScratch = 1 << 16;
constexpr Index kSums = 1 << 21;
constexpr Index kSlices = 16;
constexpr Index kGroup = 32;

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

// The convolution with a window 3 wide and one vector of output channels, where `Panel` would wait
// for loads: here an input pixel is loaded once for the three output pixels that it acts on.
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
  if (sliding && outputs % two.columns != 0) {
    for (const Panels* panels : {&sliding_one, &sliding_eight}) {
      if (outputs % panels->columns == 0) return *panels;
    }
  }
  for (const Panels* panels : {&two, &one, &eight, &four}) {
    if (outputs % panels->columns == 0) return *panels;
  }
  return single;
}

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

struct Shape {
  Index n, d, h, w, c, o, kd, kh, kw;
  // Of the arrays, from their beginning the image is (d, h, w).
  Index all_d = d, all_h = h, all_w = w;

  // Where a row of the image begins, in pixels of the arrays; plane in [0, n * d).
  Index Row(Index plane, Index y) const {
    return ((plane / d * all_d + plane % d) * all_h + y) * all_w;
  }

  Index padded_width() const { return w + kw - 1; }
  // Rows of the output whose padded input, `channels` wide, fits the scratch memory.
  Index RowsPerChunk(Index channels) const {
    return std::clamp<Index>(kScratch / (kd * padded_width() * channels) - kh + 1, 1, h);
  }
};

// An image whose channels are those of one array, or of two, one after the other.
struct Image {
  const float* parts[2];
  Index channels[2];
};

// The input rows that output rows [y0, y0 + rows) of a plane see, with zeros around, of channels
// [c0, c0 + channels): (kd, rows + kh - 1, w + kw - 1, channels).
const float* PaddedRows(const Shape& s, const Image& x, Index plane, Index y0, Index rows, Index c0,
                        Index channels) {
  thread_local std::vector<float> scratch;
  const Index height = rows + s.kh - 1, row = s.padded_width() * channels;
  scratch.assign(s.kd * height * row, 0.0f);
  const Index z0 = plane % s.d - s.kd / 2;
  for (Index tap = 0; tap < s.kd; ++tap) {
    if (z0 + tap < 0 || z0 + tap >= s.d) continue;
    for (Index i = 0; i < height; ++i) {
      const Index y = y0 - s.kh / 2 + i;
      if (y < 0 || y >= s.h) continue;
      float* const to = scratch.data() + (tap * height + i) * row + s.kw / 2 * channels;
      const Index first = s.Row(plane - s.kd / 2 + tap, y);
      for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
        const Index all = x.channels[part];
        const Index begin = std::max(c0 - before, Index{0});
        const Index end = std::min(c0 + channels - before, all);
        if (begin >= end) continue;
        const float* const from = x.parts[part] + first * all + begin;
        float* const into = to + before + begin - c0;
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
  return scratch.data();
}

// The kernel of a convolution whose output channels are those of `group` rows below each other: it
// is group - 1 rows higher, (kd, kh + group - 1, kw, c, group * o), and a row that an output row does
// not see is 0 for it.
std::vector<float> GroupedKernel(const Shape& s, const float* kernel, Index group) {
  const Index length = s.kw * s.c, height = s.kh + group - 1;
  std::vector<float> grouped(s.kd * height * length * group * s.o);
  for (Index tap = 0; tap < s.kd * s.kh; ++tap) {
    for (Index row = 0; row < group; ++row) {
      const Index line = tap / s.kh * height + tap % s.kh + row;
      for (Index k = 0; k < length; ++k) {
        std::memcpy(grouped.data() + ((line * length + k) * group + row) * s.o,
                    kernel + (tap * length + k) * s.o, s.o * sizeof(float));
      }
    }
  }
  return grouped;
}

// The kernel, a block of output channels after the other.
std::vector<float> PackedKernel(const float* kernel, Index terms, Index outputs, Index columns) {
  std::vector<float> packed(terms * outputs);
  for (Index block = 0; block < outputs / columns; ++block) {
    for (Index k = 0; k < terms; ++k) {
      std::memcpy(packed.data() + (block * terms + k) * columns,
                  kernel + k * outputs + block * columns, columns * sizeof(float));
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

void Convolve(ffi::ThreadPool& pool, const Shape& s, const Image& x, const float* kernel,
              const Finish& finish, float* y) {
  if (s.n * s.d * s.h * s.w * s.o == 0) return;
  // Output channels that leave half a vector empty: those of two rows together fill it.
  const Index group = s.kh == 3 && s.o % kLanes == kLanes / 2 && kLanes > 8 ? 2 : 1;
  const Index outputs = group * s.o, tall = s.kh + group - 1;
  const Panels& panels = PanelsFor<false>(outputs, s.kw == 3);
  const Index columns = panels.columns, blocks = outputs / columns;
  const Index length = s.kw * s.c, taps = s.kd * tall;
  const std::vector<float> packed =
      PackedKernel(GroupedKernel(s, kernel, group).data(), taps * length, outputs, columns);
  const Index chunk = CeilDiv(s.RowsPerChunk(s.c), group) * group, chunks = CeilDiv(s.h, chunk);
  const Index step = panels.Step(s.w);
  ParallelFor(pool, s.n * s.d * chunks, [&](Index item) {
    const Index plane = item / chunks, y0 = item % chunks * chunk;
    const Index rows = std::min(chunk, s.h - y0);
    // A last row that has no other to go with it goes with one behind the image.
    const Index groups = CeilDiv(rows, group), height = groups * group + s.kh - 1;
    const float* const padded = PaddedRows(s, x, plane, y0, groups * group, 0, s.c);
    std::vector<const float*> a(taps), b(taps);
    float sums[kRows * 2 * kLanes];
    for (Index block = 0; block < blocks; ++block) {
      // Its channels are those of these rows of a group, which see these lines of the input.
      const Index upper = block * columns / s.o, lower = ((block + 1) * columns - 1) / s.o;
      const Index lines = lower + s.kh - upper;
      for (Index i = 0; i < s.kd * lines; ++i) {
        const Index tap = i / lines * tall + upper + i % lines;
        b[i] = packed.data() + (block * taps + tap) * length * columns;
      }
      // Down the rows: most of what a panel reads is in the nearest cache since the last one.
      for (Index x0 = 0; x0 < s.w; x0 += step) {
        for (Index row = 0; row < rows; row += group) {
          for (Index i = 0; i < s.kd * lines; ++i) {
            const Index line = i / lines * height + row + upper + i % lines;
            a[i] = padded + (line * s.padded_width() + x0) * s.c;
          }
          const Index pixels = std::min(step, s.w - x0);
          panels.by_rows[pixels]({a.data(), b.data(), s.kd * lines, length}, s.c, columns, sums,
                                 columns, false);
          for (Index below = upper; below <= lower && row + below < rows; ++below) {
            const Index first = std::max(block * columns - below * s.o, Index{0});
            const Index last = std::min((block + 1) * columns - below * s.o, s.o);
            const float* const from = sums + below * s.o + first - block * columns;
            float* const to = y + (s.Row(plane, y0 + row + below) + x0) * s.o + first;
            finish(from, columns, first, last - first, pixels, to, s.o);
          }
        }
      }
    }
  });
}

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
    for (Index unit = first; unit < last; ++unit) {
      const Index plane = unit / chunks, y0 = unit % chunks * chunk;
      const Index rows = std::min(chunk, s.h - y0), height = rows + s.kh - 1;
      const float* const padded = PaddedRows(s, {{x, x}, {s.c, 0}}, plane, y0, rows, c0, channels);
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
              a[row] = padded + (line * s.padded_width() + tx) * channels + c;
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

using Array = ffi::Buffer<ffi::F32, 5>;
using Sizes = ffi::Buffer<ffi::S32, 1>;
using Affine = ffi::Buffer<ffi::F32, 2>;
using Result = ffi::Result<Array>;

// Zeros where the image is not: after its rows, after its planes' last rows, after its planes.
void ClearOutside(ffi::ThreadPool& pool, const Shape& s, float* y) {
  if (s.d == s.all_d && s.h == s.all_h && s.w == s.all_w) return;
  ParallelFor(pool, s.n * s.all_d * s.all_h, [&](Index row) {
    const bool inside = row % s.all_h < s.h && row / s.all_h % s.all_d < s.d;
    const Index from = inside ? s.w : 0;
    std::fill_n(y + (row * s.all_w + from) * s.o, (s.all_w - from) * s.o, 0.0f);
  });
}

// `more` has further channels of x, or none; `finish` is (3, o), bias, scale and shift, or (0, o).
ffi::Error ConvolveHandler(ffi::ThreadPool pool, Array x, Array more, Array kernel,
                           Affine finish, Sizes size, Result y) {
  const auto a = x.dimensions(), k = kernel.dimensions();
  const Index further = more.dimensions()[4], o = k[4];
  Index filled[3];
  for (int i = 0; i < 3; ++i) filled[i] = std::clamp<Index>(size.typed_data()[i], 0, a[i + 1]);
  const Shape shape{a[0], filled[0], filled[1], filled[2], a[4] + further, o,
                    k[0], k[1],      k[2],      a[1],      a[2],           a[3]};
  WantLargePages(y->typed_data(), y->size_bytes());
  ClearOutside(pool, shape, y->typed_data());
  const Image image{{x.typed_data(), more.typed_data()}, {a[4], further}};
  const float* const f = finish.typed_data();
  const Finish last = finish.dimensions()[0] ? Finish{f, f + o, f + 2 * o} : Finish{};
  Convolve(pool, shape, image, kernel.typed_data(), last, y->typed_data());
  return ffi::Error::Success();
}

ffi::Error WeightGradientHandler(ffi::ThreadPool pool, Array x, Array dy, Result dw) {
  const auto a = x.dimensions(), k = dw->dimensions();
  const Shape shape{a[0], a[1], a[2], a[3], a[4], k[4], k[0], k[1], k[2]};
  WeightGradient(pool, shape, x.typed_data(), dy.typed_data(), dw->typed_data());
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    convolve, ConvolveHandler,
    ffi::Ffi::Bind()
        .Ctx<ffi::ThreadPool>()
        .Arg<Array>()
        .Arg<Array>()
        .Arg<Array>()
        .Arg<Affine>()
        .Arg<Sizes>()
        .Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    weight_gradient, WeightGradientHandler,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>().Ret<Array>());
