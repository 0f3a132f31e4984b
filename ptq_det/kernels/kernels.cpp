// Kernels of the engine `sparse`: convolutions whose ternary weights are lists of rows to add and to
// subtract, dense ones beside them, and what a detector needs between. C interface, no dependency.
//
// Activations are int16 codes in planes: a channel's pixels row by row, each row followed by a zero,
// each picture by a row of zeros, so that the margin of a 3 x 3 kernel is there and a step from a
// pixel to its neighbour is a fixed distance. Outputs are computed TILE positions at a time: what
// they need of the input is copied into rows of TILE codes, one for each channel and place of the
// kernel, at most ROWS at a time (32 KB, a first-level cache). A nonzero weight of a filter is then
// one row added to, or subtracted from, the filter's sums.
//
// Sums are exact. They stay in int16 while at most so many rows are added that no sum leaves int16,
// and are added to int32 then; lists are cut accordingly when they are made.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#include <unistd.h>

namespace {

#if defined(__AVX512BW__)
constexpr int VECTOR = 64;  // bytes of a register
#elif defined(__AVX2__)
constexpr int VECTOR = 32;
#else
constexpr int VECTOR = 16;
#endif
constexpr int LANES = VECTOR / 2, WIDE = VECTOR / 4;  // int16 and int32 of a register
constexpr int TILE = 64, ROWS = 256;
constexpr int UNROLLED = 4;  // rows of a list that are added at a time; row ROWS of a tile is zero
constexpr int FILTERS = 6, COLUMNS = 2 * WIDE;  // of sums that a dense kernel keeps in registers
constexpr int GROUP = 64;                       // filters that one piece of work has at least
constexpr float ROUND = 12582912.f;             // 1.5 * 2^23: what is added to it is rounded to even

using Short = int16_t __attribute__((vector_size(VECTOR)));
using Half = int16_t __attribute__((vector_size(VECTOR / 2)));
using Word = uint16_t __attribute__((vector_size(VECTOR)));  // wraps around without being undefined
using Int = int32_t __attribute__((vector_size(VECTOR)));
using Float = float __attribute__((vector_size(VECTOR)));

template <class T, class P> T load(const P* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T, class P> void store(P* to, T value) { std::memcpy(to, &value, sizeof value); }

Int widen(const int16_t* from) { return __builtin_convertvector(load<Half>(from), Int); }

// By hand where the compiler would go through memory.
void widen(Word from, Int to[2]) {
#if defined(__AVX512BW__)
  to[0] = (Int)_mm512_cvtepi16_epi32(_mm512_castsi512_si256((__m512i)from));
  to[1] = (Int)_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64((__m512i)from, 1));
#elif defined(__AVX2__)
  to[0] = (Int)_mm256_cvtepi16_epi32(_mm256_castsi256_si128((__m256i)from));
  to[1] = (Int)_mm256_cvtepi16_epi32(_mm256_extracti128_si256((__m256i)from, 1));
#else
  Half halves[2];
  std::memcpy(halves, &from, sizeof from);
  for (int i = 0; i < 2; i++) to[i] = __builtin_convertvector(halves[i], Int);
#endif
}

Short narrow(Int low, Int high) {  // of what is within int16
#if defined(__AVX512BW__)
  __m256i a = _mm512_cvtepi32_epi16((__m512i)low), b = _mm512_cvtepi32_epi16((__m512i)high);
  return (Short)_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
#elif defined(__AVX2__)
  __m256i by_halves = _mm256_packs_epi32((__m256i)low, (__m256i)high);
  return (Short)_mm256_permute4x64_epi64(by_halves, 0xd8);
#else
  Half halves[2] = {__builtin_convertvector(low, Half), __builtin_convertvector(high, Half)};
  return load<Short>(halves);
#endif
}

Short every_second(const int16_t* from) {
  Int low = load<Int>(from), high = load<Int>(from + LANES);
  return narrow(low << 16 >> 16, high << 16 >> 16);
}

// Codes of two rows in turn, as pairs.
void interleave(Short a, Short b, int16_t* to) {
#if defined(__AVX512BW__)
  __m512i low = _mm512_unpacklo_epi16((__m512i)a, (__m512i)b);
  __m512i high = _mm512_unpackhi_epi16((__m512i)a, (__m512i)b);
  __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  store(to, _mm512_permutex2var_epi64(low, first, high));
  store(to + LANES, _mm512_permutex2var_epi64(low, second, high));
#elif defined(__AVX2__)
  __m256i low = _mm256_unpacklo_epi16((__m256i)a, (__m256i)b);
  __m256i high = _mm256_unpackhi_epi16((__m256i)a, (__m256i)b);
  store(to, _mm256_permute2x128_si256(low, high, 0x20));
  store(to + LANES, _mm256_permute2x128_si256(low, high, 0x31));
#else
  for (int i = 0; i < LANES; i++) to[2 * i] = a[i], to[2 * i + 1] = b[i];
#endif
}

// Clamps, rounds to the nearest code, ties to even.
Int to_codes(Float x, Float low, Float high) {
  x = x < low ? low : x;
  x = x > high ? high : x;
  return (Int)(x + ROUND) - (Int)(ROUND - Float{});
}

// Sums of products of neighbouring int16, added to `sum`.
Int add_products(Int sum, Short a, Short b) {
#if defined(__AVX512VNNI__)
  return (Int)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
  return sum + (Int)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (Int)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__ARM_NEON)
  int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
  int32x4_t high = vmull_s16(vget_high_s16((int16x8_t)a), vget_high_s16((int16x8_t)b));
  return sum + (Int)vpaddq_s32(low, high);
#else
  for (int i = 0; i < WIDE; i++) sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return sum;
#endif
}

// Threads that wait for work; a process that was forked gets new ones.
class Pool {
 public:
  void run(int threads, const std::function<void()>& work) {
    if (threads < 2) return work();
    std::lock_guard<std::mutex> one_at_a_time(turn_);
    std::unique_lock<std::mutex> lock(mutex_);
    while ((int)threads_.size() < threads - 1) {
      int place = threads_.size();
      threads_.emplace_back([this, place] { serve(place); });
    }
    work_ = &work;
    wanted_ = busy_ = threads - 1;
    round_++;
    lock.unlock();
    start_.notify_all();
    work();
    lock.lock();
    end_.wait(lock, [this] { return !busy_; });
  }
  static Pool& instance() {
    static std::mutex guard;
    static Pool* pool;
    static pid_t owner;
    std::lock_guard<std::mutex> lock(guard);
    if (!pool || owner != getpid()) pool = new Pool, owner = getpid();
    return *pool;
  }

 private:
  void serve(int place) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (long seen = 0;;) {
      start_.wait(lock, [&] { return round_ != seen && place < wanted_; });
      seen = round_;
      lock.unlock();
      (*work_)();
      lock.lock();
      if (!--busy_) end_.notify_one();
    }
  }
  std::mutex turn_, mutex_;
  std::condition_variable start_, end_;
  std::vector<std::thread> threads_;
  const std::function<void()>* work_ = nullptr;
  int wanted_ = 0, busy_ = 0;
  long round_ = 0;
};

// Calls work(i) for each i below count on several threads, which take neighbours together.
template <class Work> void in_parallel(int count, int threads, const Work& work) {
  std::atomic<int> next{0};
  int some = std::min(std::max(count / (8 * threads), 1), 16);
  std::function<void()> loop = [&] {
    for (int i; (i = next.fetch_add(some)) < count;) {
      for (int j = i; j < std::min(i + some, count); j++) work(j);
    }
  };
  Pool::instance().run(std::min(threads, count), loop);
}

template <class T> struct Aligned {  // memory that grows, aligned to registers
  std::unique_ptr<char[]> bytes;
  size_t size = 0;
  T* get(size_t count) {
    if (count > size) bytes.reset(new char[count * sizeof(T) + 64]), size = count;
    return (T*)(((uintptr_t)bytes.get() + 63) / 64 * 64);
  }
};

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

extern "C" {

// Pictures as planes of codes; all codes are from `low` to `high`.
struct PtqMap {
  int16_t* data;
  int32_t channels, images, height, width, low, high;
};

// What is done with the sums of filter f: scale[f] * sum + bias[f] + added_scale * added, clamped
// to the codes of `out`; or, where `out` is null, float32 of shape (images, filters, height, width).
struct PtqEnd {
  const float *scale, *bias;
  const PtqMap* added;
  float added_scale;
  int32_t relu;  // of a float output
  const PtqMap* out;
  float* floats;
};

// A map's codes pixel by pixel, for pooling; its pixels are `scale` of the picture's.
struct PtqLevel {
  const int16_t* pixels;
  int32_t height, width;
  float scale;
};
}

namespace {

int64_t row_of(const PtqMap& m) { return m.width + 1; }
int64_t image_of(const PtqMap& m) { return (m.height + 1) * row_of(m); }
int64_t lead_of(const PtqMap& m) { return round_up(row_of(m) + 1, 32); }
int64_t positions_of(const PtqMap& m) {
  return std::max<int64_t>(m.images * image_of(m) - row_of(m), 0);
}
int64_t plane_of(const PtqMap& m) {
  int64_t size = round_up(lead_of(m) + positions_of(m) + row_of(m) + 1 + TILE, 32);
  return size % 2048 ? size : size + 32;  // planes 4 KB apart would share a few lines of the cache
}
int16_t* channel(const PtqMap& m, int64_t c) { return m.data + c * plane_of(m); }

// Zeros before and behind the positions of each plane, which kernels of neighbours read.
void clear_ends(const PtqMap& m) {
  for (int c = 0; c < m.channels; c++) {
    int16_t *plane = channel(m, c), *end = plane + lead_of(m) + positions_of(m);
    std::fill(plane, plane + lead_of(m), 0);
    std::fill(end, plane + plane_of(m), 0);
  }
}

struct Item {  // rows of a list: first those added to a filter's sums, then those subtracted
  uint16_t filter, plus, minus;
};
struct Start {  // of a group's part of a block
  uint32_t item, row;
};
struct Segment {  // of a tile: `count` pixels of an output row, from column x of picture n
  int at, count, n, y, x;
};

}  // namespace

struct PtqLayer {
  int32_t inputs, outputs, kernel[2], stride[2], padding[2], dilation[2], low, high;
  bool dense;
  std::vector<uint16_t> rows;
  std::vector<Item> items;
  std::vector<Start> starts;      // of each block and group, and the end
  std::vector<int16_t> weights;   // dense: of each block, FILTERS and pair of rows
  int taps() const { return kernel[0] * kernel[1]; }
  int depth() const { return inputs * taps(); }
  int blocks() const { return (depth() + ROWS - 1) / ROWS; }
  int block() const {  // rows of a block, an even number
    return ((depth() + blocks() - 1) / blocks() + 1) / 2 * 2;
  }
  int groups() const { return (outputs + GROUP - 1) / GROUP; }
};

namespace {

struct List {
  int filter;
  std::vector<uint16_t> plus, minus;
};

// Some rows, filled up by the row of zeros.
std::vector<uint16_t> part(const std::vector<uint16_t>& rows, size_t first, size_t count) {
  std::vector<uint16_t> found(rows.begin() + first, rows.begin() + first + count);
  found.resize(round_up(count, UNROLLED), ROWS);
  return found;
}

void make_lists(PtqLayer& layer, const int8_t* codes) {
  int depth = layer.depth(), largest = std::max(layer.high, -layer.low);
  int most = 32767 / std::max(largest, 1);
  for (int block = 0; block < layer.blocks(); block++) {
    int first = block * layer.block(), last = std::min(depth, first + layer.block());
    for (int group = 0; group < layer.outputs; group += GROUP) {
      layer.starts.push_back({(uint32_t)layer.items.size(), (uint32_t)layer.rows.size()});
      std::vector<List> lists;
      for (int f = group; f < std::min(group + GROUP, layer.outputs); f++) {
        std::vector<uint16_t> rows[2];
        for (int row = first; row < last; row++) {
          int8_t code = codes[(int64_t)f * depth + row];
          if (code) rows[code < 0].push_back(row - first);
        }
        for (size_t plus = 0, minus = 0; plus < rows[0].size() || minus < rows[1].size();) {
          // Sums of inputs of one sign are between those of its added and of its subtracted rows.
          int added = std::min<int>(rows[0].size() - plus, most);
          int left = layer.low < 0 ? most - added : most;
          int subtracted = std::min<int>(rows[1].size() - minus, left);
          lists.push_back({f, part(rows[0], plus, added), part(rows[1], minus, subtracted)});
          plus += added, minus += subtracted;
        }
      }
      // Lists of equal lengths follow each other, so that the processor foresees their ends.
      std::stable_sort(lists.begin(), lists.end(), [](const List& a, const List& b) {
        return std::make_pair(a.plus.size(), a.minus.size()) <
               std::make_pair(b.plus.size(), b.minus.size());
      });
      for (auto& list : lists) {
        layer.items.push_back(
            {(uint16_t)list.filter, (uint16_t)list.plus.size(), (uint16_t)list.minus.size()});
        layer.rows.insert(layer.rows.end(), list.plus.begin(), list.plus.end());
        layer.rows.insert(layer.rows.end(), list.minus.begin(), list.minus.end());
      }
    }
  }
  layer.starts.push_back({(uint32_t)layer.items.size(), (uint32_t)layer.rows.size()});
  layer.rows.shrink_to_fit(), layer.items.shrink_to_fit();
}

void make_weights(PtqLayer& layer, const int8_t* codes) {
  int depth = layer.depth(), sets = (layer.outputs + FILTERS - 1) / FILTERS;
  layer.weights.assign((size_t)layer.blocks() * sets * FILTERS * ROWS, 0);
  for (int f = 0; f < layer.outputs; f++) {
    for (int row = 0; row < depth; row++) {
      size_t set = (size_t)(row / layer.block()) * sets + f / FILTERS;
      size_t pair = row % layer.block() / 2;
      size_t place = ((set * ROWS / 2 + pair) * FILTERS + f % FILTERS) * 2 + row % 2;
      layer.weights[place] = codes[(int64_t)f * depth + row];
    }
  }
}

// Where rows of tiles come from: a channel's pixels, moved by a place of the kernel.
struct Sources {
  struct Row {
    const int16_t* plane;
    int dy, dx;
    int64_t distance;  // of neighbours that a whole tile can be copied from
    bool last;         // of the channel's places
  };
  const PtqLayer& layer;
  const PtqMap &in, &out;
  bool linear;  // outputs are as their inputs, and no kernel reaches beyond a margin
  std::vector<Row> rows;

  Sources(const PtqLayer& layer, const PtqMap& in, const PtqMap& out)
      : layer(layer), in(in), out(out) {
    linear = in.height == out.height && in.width == out.width;
    for (int i = 0; i < 2; i++) {
      int reach = layer.dilation[i] * (layer.kernel[i] - 1) / 2;
      linear &= layer.stride[i] == 1 && layer.padding[i] == reach && reach <= 1;
      linear &= layer.kernel[i] % 2 == 1;
    }
    for (int c = 0; c < layer.inputs; c++) {
      const int16_t* plane = channel(in, c) + lead_of(in);
      for (int tap = 0; tap < layer.taps(); tap++) {
        int dy = tap / layer.kernel[1] * layer.dilation[0] - layer.padding[0];
        int dx = tap % layer.kernel[1] * layer.dilation[1] - layer.padding[1];
        rows.push_back({plane, dy, dx, dy * row_of(in) + dx, tap + 1 == layer.taps()});
      }
    }
  }
};

// Fills a tile: what its positions need of the input.
class Filler {
 public:
  explicit Filler(const Sources& sources)
      : sources_(sources), layer_(sources.layer), in_(sources.in), out_(sources.out) {}

  void move_to(int64_t position) {
    position_ = position;
    int64_t row = row_of(out_), image = image_of(out_);
    segments_.clear();
    for (int at = 0; at < TILE;) {
      int64_t p = position + at;
      int n = p / image, y = p % image / row, x = p % row;
      if (n >= out_.images) break;
      int count = std::min<int>(TILE - at, row - x), pixels = std::min<int>(count, out_.width - x);
      if (y < out_.height && pixels > 0) segments_.push_back({at, pixels, n, y, x});
      at += count;
    }
    for (int at = 0; at < TILE; at++) mask_[at] = 0;
    for (auto& s : segments_) std::fill(mask_ + s.at, mask_ + s.at + s.count, -1);
  }

  // Rows `first` to `last` of all that the layer has.
  void fill(int first, int last, int16_t* tile) const {
    for (int r = first; r < last; r++, tile += TILE) {
      auto [plane, dy, dx, distance, is_last] = sources_.rows[r];
      if (sources_.linear) {
        const int16_t* from = plane + position_ + distance;
        // Planes are too far apart for the processor to foresee what the next tile needs of them.
        if (is_last) {
          for (int i = 0; i < TILE; i += 32) __builtin_prefetch(from + TILE + i);
        }
        for (int i = 0; i < TILE; i += LANES) store(tile + i, load<Short>(from + i));
        continue;
      }
      std::memset(tile, 0, TILE * sizeof *tile);
      for (auto& s : segments_) {
        int y = s.y * layer_.stride[0] + dy, step = layer_.stride[1], x = s.x * step + dx;
        if (y < 0 || y >= in_.height) continue;
        int begin = x < 0 ? (-x + step - 1) / step : 0;
        int end = std::min(s.count, (in_.width - x + step - 1) / step);
        const int16_t* from = plane + s.n * image_of(in_) + y * row_of(in_) + x;
        if (step == 1) {
          for (int i = begin; i < end; i++) tile[s.at + i] = from[i];
        } else if (step == 2) {
          int i = begin;
          for (; i + LANES <= end; i += LANES) store(tile + s.at + i, every_second(from + 2 * i));
          for (; i < end; i++) tile[s.at + i] = from[2 * i];
        } else {
          for (int i = begin; i < end; i++) tile[s.at + i] = from[step * i];
        }
      }
    }
  }

  const std::vector<Segment>& segments() const { return segments_; }
  const int16_t* mask() const { return mask_; }  // -1 at pixels, 0 between them

 private:
  const Sources& sources_;
  const PtqLayer& layer_;
  const PtqMap &in_, &out_;
  int64_t position_ = 0;
  std::vector<Segment> segments_;
  alignas(64) int16_t mask_[TILE];
};

void add_lists(const PtqLayer& layer, Start start, uint32_t end, const int16_t* tile, int32_t* sums) {
  constexpr int N = TILE / LANES;
  const uint16_t* row = layer.rows.data() + start.row;
  for (const Item *item = &layer.items[start.item], *last = layer.items.data() + end; item < last;
       item++) {
    Word a[N] = {};
    for (const uint16_t* stop = row + item->plus; row < stop; row += UNROLLED) {
      for (int i = 0; i < UNROLLED; i++) {
        const Word* from = (const Word*)(tile + (size_t)row[i] * TILE);
        for (int v = 0; v < N; v++) a[v] += from[v];
      }
    }
    for (const uint16_t* stop = row + item->minus; row < stop; row += UNROLLED) {
      for (int i = 0; i < UNROLLED; i++) {
        const Word* from = (const Word*)(tile + (size_t)row[i] * TILE);
        for (int v = 0; v < N; v++) a[v] -= from[v];
      }
    }
    Int* sum = (Int*)(sums + (size_t)item->filter * TILE);
    for (int v = 0; v < N; v++) {
      Int wide[2];
      widen(a[v], wide);
      sum[2 * v] += wide[0], sum[2 * v + 1] += wide[1];
    }
  }
}

// Products of `pairs` pairs of rows, each COLUMNS positions wide, for FILTERS filters.
void add_dense(const int16_t* weights, const int16_t* pairs_of_rows, int pairs, int32_t* sums) {
  Int a[FILTERS][2];
  for (int f = 0; f < FILTERS; f++) {
    for (int v = 0; v < 2; v++) a[f][v] = load<Int>(sums + f * TILE + v * WIDE);
  }
  for (int p = 0; p < pairs; p++, weights += 2 * FILTERS, pairs_of_rows += 2 * COLUMNS) {
    Short x[2] = {load<Short>(pairs_of_rows), load<Short>(pairs_of_rows + LANES)};
    for (int f = 0; f < FILTERS; f++) {
      Short w = (Short)(load<int32_t>(weights + 2 * f) - Int{});
      for (int v = 0; v < 2; v++) a[f][v] = add_products(a[f][v], x[v], w);
    }
  }
  for (int f = 0; f < FILTERS; f++) {
    for (int v = 0; v < 2; v++) store(sums + f * TILE + v * WIDE, a[f][v]);
  }
}

// Two rows side by side, for each COLUMNS positions.
void pair_up(const int16_t* tile, int rows, int16_t* pairs) {
  for (int r = 0; r < rows; r += 2, tile += 2 * TILE) {
    for (int c = 0; c < TILE; c += COLUMNS) {
      int16_t* to = pairs + (size_t)c * ROWS + (size_t)r * COLUMNS;
      interleave(load<Short>(tile + c), load<Short>(tile + TILE + c), to);
    }
  }
}

void finish(const PtqEnd& end, const PtqMap& out, const Filler& filler, int64_t position, int first,
            int last, const int32_t* sums) {
  constexpr int AHEAD = 4;  // filters whose planes are asked for in advance
  int64_t plane = plane_of(out);
  Float low = (float)out.low - Float{}, high = (float)out.high - Float{};
  for (int f = first; f < last; f++, sums += TILE) {
    Float scale = end.scale[f] - Float{}, bias = end.bias[f] - Float{};
    if (!end.out) {
      int64_t size = (int64_t)out.height * out.width;
      for (auto& s : filler.segments()) {
        float* to = end.floats + ((int64_t)s.n * out.channels + f) * size + s.y * out.width + s.x;
        for (int i = 0; i < s.count; i++) {
          float x = sums[s.at + i] * end.scale[f] + end.bias[f];
          to[i] = end.relu && x < 0 ? 0 : x;
        }
      }
      continue;
    }
    int64_t place = f * plane + lead_of(out) + position;
    const int16_t* ahead = out.data + place + (f + AHEAD < last ? AHEAD * plane : 0);
    for (int i = 0; i < TILE; i += 32) __builtin_prefetch(ahead + i, 1);
    for (int v = 0; v < TILE; v += LANES) {
      Int codes[2];
      for (int i = 0; i < 2; i++) {
        int at = v + i * WIDE;
        Float x = __builtin_convertvector(load<Int>(sums + at), Float) * scale + bias;
        if (end.added) {
          Int added = widen(end.added->data + place + at);
          x += __builtin_convertvector(added, Float) * (end.added_scale - Float{});
        }
        codes[i] = to_codes(x, low, high);
      }
      Short both = narrow(codes[0], codes[1]) & load<Short>(filler.mask() + v);
      store(out.data + place + v, both);
    }
  }
}

void convolve(const PtqLayer& layer, const PtqMap& in, const PtqMap& out, const PtqEnd& end,
              int threads) {
  int tiles = (positions_of(out) + TILE - 1) / TILE, blocks = layer.blocks();
  int groups = layer.groups(), filters = GROUP;
  if (layer.dense) groups = 1, filters = layer.outputs;
  // Work is shared by tiles; by filters too where there are few, as each fills tiles of its own.
  int shares = std::min(groups, std::max(1, 4 * threads / std::max(tiles, 1)));
  if (threads == 1) shares = 1;
  Sources sources(layer, in, out);
  in_parallel(tiles * shares, threads, [&](int job) {
    static thread_local Aligned<int16_t> tile_memory, pair_memory;
    static thread_local Aligned<int32_t> sum_memory;
    int16_t* tile = tile_memory.get((ROWS + 1) * TILE);
    std::memset(tile + ROWS * TILE, 0, TILE * sizeof *tile);
    int64_t position = (int64_t)(job / shares) * TILE;
    int share = job % shares, first = groups * share / shares, last = groups * (share + 1) / shares;
    // With one block a group's sums are finished at once; else all groups' are kept meanwhile.
    int together = blocks == 1 ? 1 : last - first;
    int32_t* sums = sum_memory.get((size_t)(together * filters + FILTERS) * TILE);
    Filler filler(sources);
    filler.move_to(position);
    for (int group = first; group < last; group += together) {
      int filter = group * filters, count = std::min(layer.outputs - filter, together * filters);
      std::memset(sums, 0, (size_t)(count + FILTERS) * TILE * sizeof *sums);
      for (int block = 0; block < blocks; block++) {
        int begin = block * layer.block();
        int rows = std::min(layer.depth() - begin, layer.block());
        if (blocks > 1 || group == first) filler.fill(begin, begin + rows, tile);
        if (layer.dense) {
          int16_t* pairs = pair_memory.get(ROWS * TILE);
          if (rows % 2) std::memset(tile + rows * TILE, 0, TILE * sizeof *tile);
          pair_up(tile, rows, pairs);
          int sets = (layer.outputs + FILTERS - 1) / FILTERS;
          for (int set = 0; set < sets; set++) {
            const int16_t* weights =
                &layer.weights[((size_t)block * sets + set) * FILTERS * ROWS];
            for (int c = 0; c < TILE; c += COLUMNS) {
              add_dense(weights, pairs + (size_t)c * ROWS, (rows + 1) / 2,
                        sums + (size_t)set * FILTERS * TILE + c);
            }
          }
        } else {
          for (int g = group; g < group + together; g++) {
            Start start = layer.starts[block * layer.groups() + g];
            uint32_t stop = layer.starts[block * layer.groups() + g + 1].item;
            add_lists(layer, start, stop, tile, sums - (int64_t)filter * TILE);
          }
        }
      }
      finish(end, out, filler, position, filter, filter + count, sums);
    }
  });
}

}  // namespace

extern "C" {

// Codes of a plane, margins and the room behind included.
int64_t ptq_plane(const PtqMap* map) { return plane_of(*map); }
int64_t ptq_lead(const PtqMap* map) { return lead_of(*map); }
int32_t ptq_vector() { return VECTOR; }

// A convolution. `geometry`: inputs, outputs, kernel, stride, padding, dilation (two each, rows
// first), and the least and largest input. Codes (outputs, inputs, kernel): -1, 0, 1 unless dense.
// Null where sums could leave int32 or the input int16.
PtqLayer* ptq_layer(const int32_t* geometry, const int8_t* codes, int32_t dense) {
  std::unique_ptr<PtqLayer> layer(new PtqLayer);
  std::memcpy(&layer->inputs, geometry, 12 * sizeof *geometry);
  layer->dense = dense;
  int64_t largest = std::max(layer->high, -layer->low), depth = layer->depth();
  if (largest > 32767 || layer->outputs > 65535) return nullptr;
  for (int64_t f = 0; f < layer->outputs; f++) {
    int64_t sum = 0;
    for (int64_t i = 0; i < depth; i++) {
      int code = codes[f * depth + i];
      if (!dense && std::abs(code) > 1) return nullptr;
      sum += std::abs(code);
    }
    if (sum * largest > INT32_MAX) return nullptr;
  }
  dense ? make_weights(*layer, codes) : make_lists(*layer, codes);
  return layer.release();
}
void ptq_free(PtqLayer* layer) { delete layer; }
int64_t ptq_bytes(const PtqLayer* layer) {
  return sizeof(PtqLayer) + layer->rows.capacity() * 2 + layer->weights.capacity() * 2 +
         layer->items.capacity() * sizeof(Item) + layer->starts.capacity() * sizeof(Start);
}

// Runs a layer; 0, or 1 where maps and layer do not fit.
int32_t ptq_convolve(const PtqLayer* layer, const PtqMap* in, const PtqMap* shape,
                     const PtqEnd* end, int32_t threads) {
  const PtqMap& out = *shape;
  bool fits = in->channels == layer->inputs && out.channels == layer->outputs &&
              in->images == out.images && in->low >= layer->low && in->high <= layer->high;
  int sizes[2][2] = {{in->height, out.height}, {in->width, out.width}};
  for (int i = 0; i < 2; i++) {
    int reach = layer->dilation[i] * (layer->kernel[i] - 1) + 1;
    int size = sizes[i][0] + 2 * layer->padding[i] - reach;
    fits &= size >= 0 && size / layer->stride[i] + 1 == sizes[i][1];
  }
  if (!fits) return 1;
  if (end->out) clear_ends(out);
  convolve(*layer, *in, out, *end, threads);
  return 0;
}
}

namespace {

// Weights of one bin over neighbouring positions: the mean of its samples' bilinear ones.
struct Bin {
  int first, count;
  std::vector<float> weights;
};

void make_bins(float start, float extent, int samples, int size, std::vector<Bin>& bins) {
  float step = extent / bins.size();
  int grid = samples > 0 ? samples : std::max(0, (int)std::ceil(step));
  for (size_t b = 0; b < bins.size(); b++) {
    Bin& bin = bins[b];
    bin.first = bin.count = 0;
    bin.weights.assign(grid + 3, 0.f);
    for (int s = 0; s < grid; s++) {
      float p = start + b * step + (s + .5f) * step / grid;
      if (!(p >= -1.f && p <= size)) continue;
      p = std::max(p, 0.f);
      int low = std::min((int)p, size - 1), high = std::min(low + 1, size - 1);
      float part = low == size - 1 ? 0.f : p - low;
      if (!bin.count) bin.first = low;
      size_t needed = high - bin.first + 1;
      if (bin.weights.size() < needed) bin.weights.resize(needed, 0.f);
      bin.weights[low - bin.first] += (1 - part) / grid;
      bin.weights[high - bin.first] += part / grid;
      bin.count = std::max<int>(bin.count, needed);
    }
  }
}

constexpr int SPAN = 64;  // channels that are pooled at a time
using Sums = Float[SPAN / WIDE];

}  // namespace

extern "C" {

// float32 (images, channels, height, width) to codes: x * scale to the nearest.
void ptq_from_floats(const float* x, const PtqMap* out, float scale, int32_t threads) {
  const PtqMap& m = *out;
  std::memset(m.data, 0, m.channels * plane_of(m) * sizeof *m.data);
  in_parallel(m.channels * m.images, threads, [&](int i) {
    int c = i % m.channels, n = i / m.channels;
    const float* from = x + (int64_t)i * m.height * m.width;
    int16_t* to = channel(m, c) + lead_of(m) + n * image_of(m);
    for (int y = 0; y < m.height; y++, to += row_of(m), from += m.width) {
      for (int j = 0; j < m.width; j++) {
        float value = std::min(std::max(from[j] * scale, (float)m.low), (float)m.high);
        to[j] = (int16_t)std::lrintf(value);
      }
    }
  });
}

// The largest of each window, of codes from 0 on; with a window of 1, a choice of pixels.
void ptq_max_pool(const PtqMap* in, const PtqMap* out, int32_t window, int32_t stride,
                  int32_t padding, int32_t threads) {
  const PtqMap &a = *in, &b = *out;
  in_parallel(b.channels, threads, [&](int c) {
    std::fill(channel(b, c), channel(b, c) + plane_of(b), 0);
    for (int n = 0; n < b.images; n++) {
      const int16_t* from = channel(a, c) + lead_of(a) + n * image_of(a);
      int16_t* to = channel(b, c) + lead_of(b) + n * image_of(b);
      std::vector<int16_t> row(a.width);
      for (int y = 0; y < b.height; y++, to += row_of(b)) {
        int top = std::max(y * stride - padding, 0);
        int end = std::min(y * stride - padding + window, a.height);
        std::copy_n(from + top * row_of(a), a.width, row.begin());
        for (int i = top + 1; i < end; i++) {
          const int16_t* other = from + i * row_of(a);
          for (int x = 0; x < a.width; x++) row[x] = std::max(row[x], other[x]);
        }
        for (int x = 0; x < b.width; x++) {
          int left = std::max(x * stride - padding, 0);
          int right = std::min(x * stride - padding + window, a.width);
          int16_t most = row[left];
          for (int i = left + 1; i < right; i++) most = std::max(most, row[i]);
          to[x] = most;
        }
      }
    }
  });
}

// Each pixel twice in both directions, as far as `out` goes.
void ptq_upsample(const PtqMap* in, const PtqMap* out, int32_t threads) {
  const PtqMap &a = *in, &b = *out;
  in_parallel(b.channels, threads, [&](int c) {
    std::fill(channel(b, c), channel(b, c) + plane_of(b), 0);
    for (int n = 0; n < b.images; n++) {
      int16_t* to = channel(b, c) + lead_of(b) + n * image_of(b);
      for (int y = 0; y < b.height; y++, to += row_of(b)) {
        const int16_t* from = channel(a, c) + lead_of(a) + n * image_of(a) + y / 2 * row_of(a);
        if (y % 2) {
          std::copy_n(to - row_of(b), b.width, to);
          continue;
        }
        for (int x = 0; x + 1 < b.width; x += 2) to[x] = to[x + 1] = from[x / 2];
        if (b.width % 2) to[b.width - 1] = from[b.width / 2];
      }
    }
  });
}

// A map's codes pixel by pixel: (images, height, width, channels up to a multiple of SPAN).
void ptq_pixels(const PtqMap* in, int16_t* pixels, int32_t threads) {
  const PtqMap& m = *in;
  int64_t channels = round_up(m.channels, SPAN);
  in_parallel(m.images * m.height, threads, [&](int i) {
    int n = i / m.height, y = i % m.height;
    const int16_t* from = m.data + lead_of(m) + n * image_of(m) + y * row_of(m);
    int16_t* to = pixels + i * m.width * channels;
    for (int c = 0; c < channels; c += 32) {
      const int16_t* planes[32];
      for (int k = 0; k < 32; k++) planes[k] = from + std::min(c + k, m.channels - 1) * plane_of(m);
      for (int x = 0; x < m.width; x++) {
        for (int k = 0; k < 32; k++) to[x * channels + c + k] = planes[k][x];
      }
    }
  });
}

// ROIAlign of boxes (n, 5: picture and corners), each of a level of its own. Box i becomes picture i
// of `out`, of bins x bins; or, where `flat`, column i of a picture one pixel high, whose channels
// are (channel, bin, bin). Bilinear weights are separable: a box is averaged along x for each row
// that it touches, then along y.
void ptq_roi_align(const PtqLevel* levels, const int32_t* level_of, const float* boxes,
                   int32_t count, int32_t samples, int32_t aligned, int32_t bins,
                   const PtqMap* out, int32_t flat, int32_t threads) {
  constexpr int N = SPAN / WIDE, BOXES = 16;  // boxes whose columns are written together
  const PtqMap& m = *out;
  int channels = flat ? m.channels / (bins * bins) : m.channels, area = bins * bins;
  int together = flat ? BOXES : 1;
  int64_t plane = plane_of(m);
  Float low = (float)m.low - Float{}, high = (float)m.high - Float{};
  std::memset(m.data, 0, m.channels * plane_of(m) * sizeof *m.data);
  in_parallel((count + together - 1) / together, threads, [&](int job) {
    static thread_local std::vector<float> row_memory;
    static thread_local std::vector<int16_t> code_memory;
    code_memory.resize((size_t)SPAN * area * together);
    int16_t* codes = code_memory.data();
    int first = job * together, last = std::min(first + together, count);
    std::vector<Bin> across(bins), down(bins);
    for (int c = 0; c < channels; c += SPAN) {
      for (int i = first; i < last; i++) {
        const PtqLevel& level = levels[level_of[i]];
        const float* box = boxes + 5 * (int64_t)i;
        float corner[4], size[2];
        for (int k = 0; k < 4; k++) corner[k] = box[1 + k] * level.scale - (aligned ? .5f : 0.f);
        for (int k = 0; k < 2; k++) {
          size[k] = corner[k + 2] - corner[k];
          if (!aligned) size[k] = std::max(size[k], 1.f);
        }
        make_bins(corner[0], size[0], samples, level.width, across);
        make_bins(corner[1], size[1], samples, level.height, down);
        int top = level.height, end = 0;
        for (auto& bin : down) {
          if (bin.count) top = std::min(top, bin.first), end = std::max(end, bin.first + bin.count);
        }
        row_memory.resize((size_t)std::max(end - top, 0) * bins * SPAN);
        float* rows = row_memory.data();
        int64_t step = round_up(channels, SPAN);
        const int16_t* map = level.pixels + (int64_t)box[0] * level.height * level.width * step + c;
        for (int y = top; y < end; y++) {
          for (int x = 0; x < bins; x++) {
            Float sums[N];
            for (int v = 0; v < N; v++) sums[v] = Float{};
            const Bin& bin = across[x];
            const int16_t* from = map + ((int64_t)y * level.width + bin.first) * step;
            for (int k = 0; k < bin.count; k++, from += step) {
              Float weight = bin.weights[k] - Float{};
              for (int v = 0; v < N; v++) {
                sums[v] += weight * __builtin_convertvector(widen(from + v * WIDE), Float);
              }
            }
            std::memcpy(&rows[((size_t)(y - top) * bins + x) * SPAN], sums, sizeof sums);
          }
        }
        for (int y = 0; y < bins; y++) {
          for (int x = 0; x < bins; x++) {
            Float sums[N];
            for (int v = 0; v < N; v++) sums[v] = Float{};
            const Bin& bin = down[y];
            for (int k = 0; k < bin.count; k++) {
              const float* from = &rows[((size_t)(bin.first - top + k) * bins + x) * SPAN];
              Float weight = bin.weights[k] - Float{};
              for (int v = 0; v < N; v++) sums[v] += weight * load<Float>(from + v * WIDE);
            }
            int32_t some[SPAN];
            for (int v = 0; v < N; v++) store(some + v * WIDE, to_codes(sums[v], low, high));
            int16_t* to = &codes[(size_t)(y * bins + x) * together + i - first];
            for (int k = 0; k < SPAN; k++) to[(size_t)k * area * together] = some[k];
          }
        }
      }
      for (int k = 0; k < std::min(SPAN, channels - c); k++) {
        const int16_t* from = &codes[(size_t)k * area * together];
        if (flat) {
          int16_t* to = channel(m, (int64_t)(c + k) * area) + lead_of(m) + first;
          for (int bin = 0; bin < area; bin++, from += together, to += plane) {
            std::copy_n(from, last - first, to);
          }
        } else {
          int16_t* to = channel(m, c + k) + lead_of(m) + first * image_of(m);
          for (int y = 0; y < bins; y++, from += bins, to += row_of(m)) {
            std::copy_n(from, bins, to);
          }
        }
      }
    }
  });
}
}
