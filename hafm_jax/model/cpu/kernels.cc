// The two products of a decoding step on a CPU: a few rows by a weight matrix, and attention to the KV cache.
//
// Both read far more than they compute, so what counts is that memory is read once, in order, by all cores. The result
// of a row does not depend on the rows beside it: a batch gives, bit for bit, what single examples give.
//
// Weights and cache are float32, or bfloat16 that is widened on the way in; sums are float32.
//
// Axes: R rows, C contracted width, N outputs, H heads, T cached tokens, E head width.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Vectors of the compilers' own kind.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));

// A tile's sums must stay in registers: kTileRows by kTileOutputs vectors. AVX-512 has 32 of 16 lanes, AVX 16 of 8,
// NEON 32 of 4, SSE 16 of 4. A tile that spills reads at half the memory's speed with two rows, at a tenth with four.
constexpr int64_t kTileOutputs = 4;
#if defined(__AVX512F__)
typedef Float16 Vec;
constexpr int64_t kTileRows = 4;
#elif defined(__AVX__) || defined(__ARM_NEON)
typedef Float8 Vec;
constexpr int64_t kTileRows = 2;
#else
typedef Float4 Vec;
constexpr int64_t kTileRows = 2;
#endif
constexpr int64_t kLanes = sizeof(Vec) / sizeof(float);
typedef uint32_t Bits __attribute__((vector_size(sizeof(Vec))));
typedef Vec LooseVec __attribute__((aligned(4)));
typedef Bits LooseBits __attribute__((aligned(2)));

constexpr int64_t kTaskBytes = 512 << 10;    // what a thread takes at a time, at most
constexpr int64_t kSerialBytes = 256 << 10;  // less is done before another thread has woken up
constexpr int64_t kLineBytes = 64;           // of every processor's caches

using bfloat16 = uint16_t;

Vec Load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
void Store(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }
float Widen(float x) { return x; }
float Widen(bfloat16 x) {
  uint32_t bits = uint32_t{x} << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

// A stored run of elements, and its `kVecs` vectors. Two bfloat16 share one 32-bit lane, so part 0 holds the run's even
// elements and part 1 its odd ones; `Arrange` brings a float32 operand into the same order.
template <class T>
struct Run;

template <>
struct Run<float> {
  static constexpr int64_t kVecs = 1;
  Vec raw;
  explicit Run(const float* p) : raw(Load(p)) {}
  Vec Part(int64_t) const { return raw; }
};

template <>
struct Run<bfloat16> {
  static constexpr int64_t kVecs = 2;
  Bits raw;
  explicit Run(const bfloat16* p) : raw(*reinterpret_cast<const LooseBits*>(p)) {}
  Vec Part(int64_t v) const { return (Vec)(v == 0 ? raw << 16 : raw & 0xffff0000u); }
};

template <class T>
constexpr int64_t kRun = kLanes * Run<T>::kVecs;

template <class T>
void Arrange(const float* x, float* y, int64_t width) {
  int64_t i = 0;
  for (; i + kRun<T> <= width; i += kRun<T>)
    for (int64_t j = 0; j < kRun<T>; ++j) y[i + j % Run<T>::kVecs * kLanes + j / Run<T>::kVecs] = x[i + j];
  std::copy(x + i, x + width, y + i);
}

template <class T>
void Restore(const float* x, float* y, int64_t width) {
  int64_t i = 0;
  for (; i + kRun<T> <= width; i += kRun<T>)
    for (int64_t j = 0; j < kRun<T>; ++j) y[i + j] = x[i + j % Run<T>::kVecs * kLanes + j / Run<T>::kVecs];
  std::copy(x + i, x + width, y + i);
}

// By halves: a chain of sums would take longer than what it sums up.
float Sum(Float4 x) { return (x[0] + x[2]) + (x[1] + x[3]); }
[[maybe_unused]] float Sum(Float8 x) {
  Float4 half[2];
  std::memcpy(half, &x, sizeof x);
  return Sum(half[0] + half[1]);
}
[[maybe_unused]] float Sum(Float16 x) {
  Float8 half[2];
  std::memcpy(half, &x, sizeof x);
  return Sum(half[0] + half[1]);
}

// exp(x) for x <= 0, to 2 units in the last place: 2^n times the Taylor series of the rest.
Vec Exp(Vec x) {
  x = x < -87.f ? Vec{} - 87.f : x;
  Vec shifted = x * 1.44269504f + 12582912.f;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
  Vec n = shifted - 12582912.f;
  x -= n * 0.693359375f;
  x -= n * -2.12194440e-4f;
  Vec y = Vec{} + 1.f / 5040;
  for (float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) y = y * x + c;
  return (Vec)((Bits)y + ((Bits)shifted << 23));
}

// Runs tasks 0..n on the caller and XLA's own threads; each takes the next as it is free.
void ForEach(ffi::ThreadPool& pool, int64_t n, const std::function<void(int64_t)>& run) {
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto progress = std::make_shared<Progress>();
  std::function<void()> work = [progress, n, &run] {  // a thread that comes too late finds no task, and uses no `run`
    for (int64_t i; (i = progress->next.fetch_add(1)) < n;) {
      run(i);
      progress->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t i = std::min<int64_t>(pool.num_threads(), n); i > 1; --i) pool.Schedule(std::function<void()>(work));
  work();
  while (progress->done.load(std::memory_order_acquire) < n) std::this_thread::yield();
}

// y[R, N] = x[R, C] by w[N, C], for a tile of them.
template <int kRows, int kOutputs, class T>
void Tile(const float* x, const T* w, float* y, int64_t width, int64_t outputs) {
  Vec sum[kRows][kOutputs] = {};
  int64_t i = 0;
  for (; i + kRun<T> <= width; i += kRun<T>)
    for (int o = 0; o < kOutputs; ++o) {
      Run<T> weights(w + o * width + i);
      // The next tile, to L2: what the hardware prefetches ends with every short row, and L1 has no room for it.
      if (i * sizeof(T) % kLineBytes == 0) __builtin_prefetch(w + (o + kOutputs) * width + i, 0, 1);
      for (int v = 0; v < Run<T>::kVecs; ++v)
        for (int r = 0; r < kRows; ++r) sum[r][o] += Load(x + r * width + i + v * kLanes) * weights.Part(v);
    }
  for (int r = 0; r < kRows; ++r)
    for (int o = 0; o < kOutputs; ++o) {
      float total = Sum(sum[r][o]);
      for (int64_t j = i; j < width; ++j) total += x[r * width + j] * Widen(w[o * width + j]);
      y[r * outputs + o] = total;
    }
}

template <int kOutputs, class T>
void Rows(const float* x, const T* w, float* y, int64_t rows, int64_t width, int64_t outputs) {
  int64_t r = 0;
  if constexpr (kTileRows >= 4)
    for (; r + 4 <= rows; r += 4) Tile<4, kOutputs>(x + r * width, w, y + r * outputs, width, outputs);
  for (; r + 2 <= rows; r += 2) Tile<2, kOutputs>(x + r * width, w, y + r * outputs, width, outputs);
  for (; r < rows; ++r) Tile<1, kOutputs>(x + r * width, w, y + r * outputs, width, outputs);
}

template <class T>
void ProductOf(ffi::ThreadPool& pool, const float* x, const T* w, float* y, int64_t rows, int64_t width,
               int64_t outputs) {
  std::vector<float> arranged(rows * width);
  for (int64_t r = 0; r < rows; ++r) Arrange<T>(x + r * width, arranged.data() + r * width, width);
  const float* a = arranged.data();
  int64_t row_bytes = width * sizeof(T);
  int64_t per_task = outputs;
  if (outputs * row_bytes > kSerialBytes) {
    int64_t task_bytes = std::min(kTaskBytes, outputs * row_bytes / (4 * std::max<int64_t>(1, pool.num_threads())));
    per_task = std::max(kTileOutputs, task_bytes / row_bytes / kTileOutputs * kTileOutputs);
  }
  ForEach(pool, (outputs + per_task - 1) / per_task, [=](int64_t task) {
    int64_t o = task * per_task, stop = std::min(outputs, o + per_task);
    for (; o + kTileOutputs <= stop; o += kTileOutputs)
      Rows<kTileOutputs>(a, w + o * width, y + o, rows, width, outputs);
    for (; o < stop; ++o) Rows<1>(a, w + o * width, y + o, rows, width, outputs);
  });
}

// Adds weight[t] times row t of v to kVecs vectors of columns from `column` on.
template <int kVecs, class T>
void WeightedColumns(const float* weight, const T* v, float* y, int64_t tokens, int64_t width, int64_t column) {
  Vec sum[kVecs] = {};
  for (int64_t t = 0; t < tokens; ++t)
    for (int i = 0; i < kVecs; i += Run<T>::kVecs) {
      Run<T> values(v + t * width + column + i * kLanes);
      for (int j = 0; j < Run<T>::kVecs; ++j) sum[i + j] += weight[t] * values.Part(j);
    }
  for (int i = 0; i < kVecs; ++i) Store(y + column + i * kLanes, sum[i]);
}

// One head of one row: softmax(q k + bias) v over the first `tokens` of the cache.
template <class T>
void Head(const float* q, const T* k, const T* v, const float* bias, float* y, int64_t tokens, int64_t width) {
  constexpr int64_t kVecs = Run<T>::kVecs;
  int64_t padded = (tokens + kLanes - 1) / kLanes * kLanes;
  std::vector<float> scratch(padded + 2 * width);
  float* score = scratch.data();
  float* query = score + padded;
  float* sum = query + width;
  Arrange<T>(q, query, width);
  float top = -INFINITY;
  for (int64_t t = 0; t < tokens; ++t) {
    const T* key = k + t * width;
    Vec products = {};
    int64_t i = 0;
    for (; i + kRun<T> <= width; i += kRun<T>) {
      Run<T> keys(key + i);
      for (int j = 0; j < kVecs; ++j) products += Load(query + i + j * kLanes) * keys.Part(j);
    }
    score[t] = Sum(products) + bias[t];
    for (; i < width; ++i) score[t] += query[i] * Widen(key[i]);
    top = std::max(top, score[t]);
  }
  for (int64_t t = tokens; t < padded; ++t) score[t] = -INFINITY;
  for (int64_t t = 0; t < padded; t += kLanes) Store(score + t, Exp(Load(score + t) - top));
  float total = 0;
  for (int64_t t = 0; t < tokens; ++t) total += score[t];
  int64_t i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes) WeightedColumns<4>(score, v, sum, tokens, width, i);
  for (; i + 2 * kLanes <= width; i += 2 * kLanes) WeightedColumns<2>(score, v, sum, tokens, width, i);
  if constexpr (kVecs == 1)
    for (; i + kLanes <= width; i += kLanes) WeightedColumns<1>(score, v, sum, tokens, width, i);
  for (; i < width; ++i) {
    sum[i] = 0;
    for (int64_t t = 0; t < tokens; ++t) sum[i] += score[t] * Widen(v[t * width + i]);
  }
  Restore<T>(sum, y, width);
  for (int64_t j = 0; j < width; ++j) y[j] /= total;
}

template <class T>
void AttendOf(ffi::ThreadPool& pool, const float* q, const T* k, const T* v, const float* bias, float* y,
              ffi::Span<const int64_t> shape, int64_t tokens) {
  int64_t heads = shape[1], capacity = shape[2], width = shape[3];
  auto head = [=](int64_t i) {
    int64_t start = i * capacity * width;
    Head(q + i * width, k + start, v + start, bias + i % heads * capacity, y + i * width, tokens, width);
  };
  int64_t all = shape[0] * heads;
  if (2 * all * tokens * width * static_cast<int64_t>(sizeof(T)) > kSerialBytes) {
    ForEach(pool, all, head);
  } else {
    for (int64_t i = 0; i < all; ++i) head(i);
  }
}

// x float32 [R, C], w [K, N, C], index int32 [] of 0..K -> float32 [R, N], by w[index].
ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::AnyBuffer w, ffi::Buffer<ffi::S32> index,
                   ffi::ResultBuffer<ffi::F32> y) {
  int64_t rows = x.dimensions()[0], width = x.dimensions()[1], outputs = w.dimensions()[1];
  int64_t start = index.typed_data()[0] * outputs * width;
  if (w.element_type() == ffi::F32)
    ProductOf(pool, x.typed_data(), w.reinterpret_data<float>() + start, y->typed_data(), rows, width, outputs);
  else
    ProductOf(pool, x.typed_data(), w.reinterpret_data<bfloat16>() + start, y->typed_data(), rows, width, outputs);
  return ffi::Error::Success();
}

// q float32 [R, H, E], k and v [R, H, T, E], bias float32 [H, T], tokens int32 []: the filled part -> float32 [R, H, E].
ffi::Error Attend(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> q, ffi::AnyBuffer k, ffi::AnyBuffer v,
                  ffi::Buffer<ffi::F32> bias, ffi::Buffer<ffi::S32> tokens, ffi::ResultBuffer<ffi::F32> y) {
  if (k.element_type() == ffi::F32)
    AttendOf(pool, q.typed_data(), k.reinterpret_data<float>(), v.reinterpret_data<float>(), bias.typed_data(),
             y->typed_data(), k.dimensions(), tokens.typed_data()[0]);
  else
    AttendOf(pool, q.typed_data(), k.reinterpret_data<bfloat16>(), v.reinterpret_data<bfloat16>(), bias.typed_data(),
             y->typed_data(), k.dimensions(), tokens.typed_data()[0]);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(hafm_jax_product, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(hafm_jax_attend, Attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
