// 3D convolutions with stride 1 and zero padding for XLA's CPU backend, and their weight gradient.
//
// Arrays are float32 and channels last: x (n, d, h, w, c), kernel (kd, kh, kw, c, o) of odd
// window, y (n, d, h, w, o). A 2D convolution has d = kd = 1. The input's gradient is a
// convolution of dy with the mirrored kernel.
//
// A convolution may end with bias, ReLU and an affine map of each channel, for a network that is not
// trained any more, and x may be two arrays whose channels come one after the other.
//
// An image may fill only the beginning of its array: then the rest is as padding to it. In y it is 0,
// or, in a network that is not trained any more, not written: it means nothing there, and memory that
// nobody touches costs nothing.
//
// An image may pass a few planes at a time, with those that came before them in arrays of their own:
// then plane j of y sees the planes from j on of both, one after the other, and is as outside where the
// middle one of these is not of the image.
//
// Transposed convolutions whose stride is their window, pooling and parts of levels are for a network
// that is not trained any more, and write what is wanted of their result alone.
//
// The work is cut in the same pieces, and summed in the same order, whatever the number of
// threads: results are the same bits.

#include "convolution.h"
#include "resizing.h"
#include "upsampling.h"
#include "weight_gradient.h"

namespace {

using Array = ffi::Buffer<ffi::F32, 5>;
using Sizes = ffi::Buffer<ffi::S32, 1>;
using Affine = ffi::Buffer<ffi::F32, 2>;
using Corners = ffi::Buffer<ffi::S32, 2>;
using Result = ffi::Result<Array>;

// Zeros where the image is not: beside its planes, after their last rows, after its rows.
void ClearOutside(ffi::ThreadPool& pool, const Shape& s, const Image& x, float* y) {
  const Index begin = std::max(x.begin, Index{0}), end = std::min(x.end, s.d);
  if (begin == 0 && end == s.all_d && s.h == s.all_h && s.w == s.all_w) return;
  ParallelFor(pool, s.n * s.all_d * s.all_h, [&](Index row) {
    const Index plane = row / s.all_h % s.all_d;
    const bool inside = row % s.all_h < s.h && begin <= plane && plane < end;
    const Index from = inside ? s.w : 0;
    std::fill_n(y + (row * s.all_w + from) * s.o, (s.all_w - from) * s.o, 0.0f);
  });
}

// `more` has further channels of x, or none; `finish` is (3, o), bias, scale and shift, or (0, o).
// `planes` is (2), which planes of before ++ x there are of an image that passes, or (0).
ffi::Error ConvolveHandler(ffi::ThreadPool pool, Array x, Array more, Array before,
                           Array more_before, Array kernel, Affine finish, Sizes size,
                           Sizes planes, Result y) {
  const auto a = x.dimensions(), k = kernel.dimensions();
  const Index further = more.dimensions()[4], o = k[4];
  Index filled[3];
  for (int i = 0; i < 3; ++i) filled[i] = std::clamp<Index>(size.typed_data()[i], 0, a[i + 1]);
  const Shape shape{a[0], filled[0], filled[1], filled[2], a[4] + further, o,
                    k[0], k[1],      k[2],      a[1],      a[2],           a[3]};
  Image image{{x.typed_data(), more.typed_data()}, {a[4], further}, 0, shape.d};
  if (planes.element_count() > 0) {
    const Index p = before.dimensions()[1], q = more_before.dimensions()[1];
    const int32_t* const there = planes.typed_data();
    image.before[0] = before.typed_data();
    image.before[1] = more_before.typed_data();
    image.count[0] = p;
    image.count[1] = q;
    // The convolution begins with the plane -kd / 2.
    image.lead = k[0] / 2;
    image.begin = std::max<Index>(there[0], 0) - image.lead;
    image.end = std::min<Index>(there[1], std::min(p, q) + a[1]) - image.lead;
  }
  WantLargePages(y->typed_data(), y->size_bytes());
  const float* const f = finish.typed_data();
  const Finish last = finish.dimensions()[0] ? Finish{f, f + o, f + 2 * o} : Finish{};
  if (last.bias == nullptr) ClearOutside(pool, shape, image, y->typed_data());
  Convolve(pool, shape, image, kernel.typed_data(), last, y->typed_data());
  return ffi::Error::Success();
}

// `corners` (3, 3) are where y begins in an array this large, and what of y is wanted, from here to
// there.
Wanted WantedOf(Result& y, const Corners& corners, const Index (&larger)[3]) {
  const auto r = y->dimensions();
  Wanted part{r[0], {r[1], r[2], r[3]}, r[4]};
  for (int i = 0; i < 3; ++i) {
    part.start[i] = std::clamp<Index>(corners.typed_data()[i], 0, larger[i] - part.shape[i]);
    part.begin[i] = std::max<Index>(corners.typed_data()[3 + i], 0);
    part.end[i] = std::min<Index>(corners.typed_data()[6 + i], part.shape[i]);
  }
  return part;
}

ffi::Error CutHandler(ffi::ThreadPool pool, Array x, Corners corners, Result y) {
  const auto a = x.dimensions();
  const Index all[3] = {a[1], a[2], a[3]};
  Cut(pool, x.typed_data(), all, WantedOf(y, corners, all), y->typed_data());
  return ffi::Error::Success();
}

ffi::Error MaxPoolHandler(ffi::ThreadPool pool, Array x, Corners corners, Result y) {
  const auto a = x.dimensions(), r = y->dimensions();
  const Index all[3] = {a[1], a[2], a[3]}, step[3] = {a[1] / r[1], a[2] / r[2], a[3] / r[3]};
  const Wanted part = WantedOf(y, corners, {r[1], r[2], r[3]});
  MaxPool(pool, x.typed_data(), all, step, part, y->typed_data());
  return ffi::Error::Success();
}

// kernel (sd, sh, c, sw, o) of strides (sd, sh, sw); `finish` is (3, o).
ffi::Error UpsampleHandler(ffi::ThreadPool pool, Array x, Array kernel, Affine finish,
                           Corners corners, Result y) {
  const auto a = x.dimensions(), k = kernel.dimensions();
  const Index o = k[4];
  const Upsampling u{{a[1], a[2], a[3]}, a[4], {k[0], k[1], k[3]}};
  const Wanted part = WantedOf(y, corners, {a[1] * k[0], a[2] * k[1], a[3] * k[3]});
  const float* const f = finish.typed_data();
  Upsample(pool, u, x.typed_data(), kernel.typed_data(), {f, f + o, f + 2 * o}, part,
           y->typed_data());
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
        .Arg<Array>()
        .Arg<Array>()
        .Arg<Affine>()
        .Arg<Sizes>()
        .Arg<Sizes>()
        .Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    cut, CutHandler,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Corners>().Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    max_pool, MaxPoolHandler,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Corners>().Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    upsample, UpsampleHandler,
    ffi::Ffi::Bind()
        .Ctx<ffi::ThreadPool>()
        .Arg<Array>()
        .Arg<Array>()
        .Arg<Affine>()
        .Arg<Corners>()
        .Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    weight_gradient, WeightGradientHandler,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Array>().Arg<Array>().Ret<Array>());
