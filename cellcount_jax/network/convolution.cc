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
// (kw, c), which lie next to each other in memory, with a third of the products saved where the
// kernel is three rows high (MixedRows); in the weight gradient the rows are input channels and the
// sum runs over pixels.
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
// Planes of the output that a thread computes one after the other, an even number.
constexpr Index kSlab = 16;

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
  if (sliding) {
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

// Two output rows below each other see four input rows, d0 to d3, by a kernel of three, g0 to g2.
// With the mixed rows and kernels
//
//   t = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
//   k = (g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2)
//
// and m the four convolutions of a row of t with its k, they are (m0 + m1 + m2, m1 - m2 - m3): four
// products in place of six (Winograd 1980; F(2, 3) of Lavin and Gray 2016).
constexpr Index kMixed = 4;

// Mixed rows, `step` apart, of `count` floats of each of four rows.
void Mix(const float* __restrict d0, const float* __restrict d1, const float* __restrict d2,
         const float* __restrict d3, Index count, float* __restrict t, Index step) {
  for (Index i = 0; i < count; ++i) t[i] = d0[i] - d2[i];
  for (Index i = 0; i < count; ++i) t[step + i] = d1[i] + d2[i];
  for (Index i = 0; i < count; ++i) t[2 * step + i] = d2[i] - d1[i];
  for (Index i = 0; i < count; ++i) t[3 * step + i] = d1[i] - d3[i];
}

// The mixed rows of pairs of output rows, the first of which is y0, with zeros around: (pairs,
// kMixed, w + kw - 1, c).
void MixedRows(const Shape& s, const Image& x, Index n, Index z, Index y0, Index pairs, float* to) {
  const Index row = s.padded_width() * s.c, side = s.kw / 2 * s.c;
  if (z < 0 || z >= s.d) {
    std::fill_n(to, pairs * kMixed * row, 0.0f);
    return;
  }
  thread_local std::vector<float> zeros;
  zeros.resize(s.w * s.c);
  for (Index i = 0; i < pairs * kMixed; ++i) {
    std::fill_n(to + i * row, side, 0.0f);
    std::fill_n(to + (i + 1) * row - side, side, 0.0f);
  }
  for (Index pair = 0; pair < pairs; ++pair) {
    for (Index part = 0, before = 0; part < 2; before += x.channels[part++]) {
      const Index all = x.channels[part];
      const auto input = [&](Index i) {
        const Index y = y0 + 2 * pair - 1 + i;
        return y < 0 || y >= s.h ? zeros.data() : x.parts[part] + s.Row(n * s.d + z, y) * all;
      };
      const float *d0 = input(0), *d1 = input(1), *d2 = input(2), *d3 = input(3);
      float* const t = to + pair * kMixed * row + side + before;
      if (all == s.c) {
        Mix(d0, d1, d2, d3, s.w * s.c, t, row);
        continue;
      }
      for (Index j = 0; j < s.w * all; j += all) {
        Mix(d0 + j, d1 + j, d2 + j, d3 + j, all, t + j / all * s.c, row);
      }
    }
  }
}

// The kernels of the mixed rows, (kMixed, kd, kw, c, o), of a kernel three rows high.
std::vector<float> MixedKernel(const Shape& s, const float* kernel) {
  const Index line = s.kw * s.c * s.o;
  std::vector<float> mixed(kMixed * s.kd * line);
  for (Index tap = 0; tap < s.kd; ++tap) {
    const float *const g0 = kernel + tap * 3 * line, *const g1 = g0 + line, *const g2 = g1 + line;
    for (Index i = 0; i < line; ++i) {
      const float even = (g0[i] + g2[i]) / 2, odd = g1[i] / 2;
      const float rows[kMixed] = {g0[i], even + odd, even - odd, g2[i]};
      for (Index j = 0; j < kMixed; ++j) mixed[(j * s.kd + tap) * line + i] = rows[j];
    }
  }
  return mixed;
}

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

void Convolve(ffi::ThreadPool& pool, const Shape& s, const Image& x, const float* kernel,
              const Finish& finish, float* y) {
  if (s.n * s.d * s.h * s.w * s.o == 0) return;
  // Output rows in pairs, by mixed rows, each of which is one line of the kernel. With few input
  // channels the products are not what takes the time.
  const bool paired = s.kh == 3 && s.c >= 4;
  const Index pair = paired ? 2 : 1, parts = paired ? kMixed : 1, lines = paired ? 1 : s.kh;
  // Output channels that leave half a vector empty: those of two planes together fill it, or zeros.
  const bool half = kLanes > 8 && s.o % kLanes == kLanes / 2;
  const Index group = half && s.kd == 3 && s.d > 1 ? 2 : 1, taps = s.kd + group - 1;
  const Index outputs = group * s.o + (half && group == 1 ? kLanes / 2 : 0);
  const Panels& panels = PanelsFor<false>(outputs, s.kw == 3);
  const Index columns = panels.columns, blocks = outputs / columns;
  const Index length = s.kw * s.c, size = length * columns;
  const std::vector<float> plain =
      paired ? MixedKernel(s, kernel)
             : std::vector<float>(kernel, kernel + s.kd * s.kh * length * s.o);
  const std::vector<float> packed = PackedKernel(
      GroupedKernel(plain, parts, s.kd, lines * length, s.o, group, outputs),
      parts * taps * lines * length, outputs, columns);
  const Index line = s.padded_width() * s.c, step = panels.Step(s.w);
  // Lines of a plane that `rows` output rows see, and how many rows fit the scratch memory.
  const auto height = [&](Index rows) {
    return paired ? CeilDiv(rows, 2) * kMixed : rows + s.kh - 1;
  };
  const Index fitting = kScratch / (taps * line);
  const Index chunk = std::max(paired ? fitting / kMixed * 2 : fitting - s.kh + 1, pair);
  const Index chunks = CeilDiv(s.h, chunk), slabs = CeilDiv(s.d, kSlab);
  ParallelFor(pool, s.n * slabs * chunks, [&](Index item) {
    const Index n = item / (slabs * chunks), y0 = item % chunks * chunk;
    const Index first_plane = item / chunks % slabs * kSlab;
    const Index last_plane = std::min(first_plane + kSlab, s.d);
    const Index rows = std::min(chunk, s.h - y0), plane_size = height(rows) * line;
    thread_local std::vector<float> scratch;
    scratch.resize(taps * plane_size);
    // The planes that are seen, each in the place of the one that is not seen any more.
    const auto seen = [&](Index z) { return scratch.data() + (z + s.kd) % taps * plane_size; };
    std::vector<const float*> a(taps * lines), b(taps * lines);
    float sums[kMixed][kRows * 2 * kLanes];
    Index filled = first_plane - s.kd / 2;
    for (Index z = first_plane; z < last_plane; z += group) {
      for (; filled < z - s.kd / 2 + taps; ++filled) {
        if (paired) {
          MixedRows(s, x, n, filled, y0, CeilDiv(rows, 2), seen(filled));
        } else {
          PaddedRows(s, x, n, filled, y0 - s.kh / 2, height(rows), 0, s.c, seen(filled));
        }
      }
      for (Index block = 0; block < blocks; ++block) {
        // Its channels are those of these planes of a group, which see these of the input.
        const Index upper = block * columns / s.o;
        const Index lower = std::min(((block + 1) * columns - 1) / s.o, group - 1);
        const Index count = (lower + s.kd - upper) * lines;
        // Down the rows: most of what a panel reads is in the nearest cache since the last one.
        for (Index x0 = 0; x0 < s.w; x0 += step) {
          const Index pixels = std::min(step, s.w - x0);
          for (Index row = 0; row < rows; row += pair) {
            for (Index part = 0; part < parts; ++part) {
              for (Index i = 0; i < count; ++i) {
                const Index tap = upper + i / lines, below = i % lines;
                const Index at = paired ? row / 2 * kMixed + part : row + below;
                a[i] = seen(z - s.kd / 2 + tap) + at * line + x0 * s.c;
                const Index term = ((block * parts + part) * taps + tap) * lines + below;
                b[i] = packed.data() + term * size;
              }
              panels.by_rows[pixels]({a.data(), b.data(), count, length}, s.c, columns, sums[part],
                                     columns, false);
            }
            if (paired) {
              for (Index i = 0; i < pixels * columns; ++i) {
                const float inner = sums[1][i] - sums[2][i];
                sums[0][i] += sums[1][i] + sums[2][i];
                sums[1][i] = inner - sums[3][i];
              }
            }
            for (Index plane = upper; plane <= lower && z + plane < last_plane; ++plane) {
              const Index first = std::max(block * columns - plane * s.o, Index{0});
              const Index last = std::min((block + 1) * columns - plane * s.o, s.o);
              for (Index below = 0; below < pair && row + below < rows; ++below) {
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
