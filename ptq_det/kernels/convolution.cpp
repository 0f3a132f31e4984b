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
#include <cstdlib>
#include <memory>
#include <vector>

#include "layer.h"
#include "parallel.h"

namespace {

template <class T> struct Aligned {  // memory that grows, aligned to registers
  std::unique_ptr<char[]> bytes;
  size_t size = 0;
  T* get(size_t count) {
    if (count > size) bytes.reset(new char[count * sizeof(T) + 64]), size = count;
    return (T*)(((uintptr_t)bytes.get() + 63) / 64 * 64);
  }
};

struct Segment {  // of a tile: `count` pixels of an output row, from column x of picture n
  int at, count, n, y, x;
};

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

  void move_to(int64_t position, int room = TILE) {  // to `room` positions, of a tile at most
    position_ = position;
    int64_t row = row_of(out_), image = image_of(out_);
    segments_.clear();
    for (int at = 0; at < room;) {
      int64_t p = position + at;
      int n = p / image, y = p % image / row, x = p % row;
      if (n >= out_.images) break;
      int count = std::min<int>(room - at, row - x), pixels = std::min<int>(count, out_.width - x);
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
  const Item *item = layer.items.data() + start.item, *last = layer.items.data() + end;
  for (; item < last; item++) {
    Word a[N] = {};
    // Loads are what this waits for: UNROLLED places come by one of them.
    auto add = [&](auto change) {
      uint64_t places = load<uint64_t>(row);
      for (int i = 0; i < UNROLLED; i++, places >>= 16) {
        const Word* from = (const Word*)((const char*)tile + (places & 0xffff));
        for (int v = 0; v < N; v++) change(a[v], from[v]);
      }
      row += UNROLLED;
    };
    for (const uint16_t* stop = row + item->plus; row < stop;) {
      add([](Word& sum, Word codes) { sum += codes; });
    }
    for (const uint16_t* stop = row + item->minus; row < stop;) {
      add([](Word& sum, Word codes) { sum -= codes; });
    }
    Int* sum = (Int*)(sums + (size_t)item->filter * TILE);
    for (int v = 0; v < N; v++) {
      Int wide[2];
      widen(a[v], wide);
      sum[2 * v] += wide[0], sum[2 * v + 1] += wide[1];
    }
  }
}

// Products of `pairs` pairs of rows, each COLUMNS positions wide, for FILTERS filters, whose sums are
// `apart` from each other.
void add_dense(const int16_t* weights, const int16_t* pairs_of_rows, int pairs, int32_t* sums,
               int apart = TILE) {
  Int a[FILTERS][2];
  for (int f = 0; f < FILTERS; f++) {
    for (int v = 0; v < 2; v++) a[f][v] = load<Int>(sums + f * apart + v * WIDE);
  }
  for (int p = 0; p < pairs; p++, weights += 2 * FILTERS, pairs_of_rows += 2 * COLUMNS) {
    Short x[2] = {load<Short>(pairs_of_rows), load<Short>(pairs_of_rows + LANES)};
    for (int f = 0; f < FILTERS; f++) {
      Short w = (Short)(load<int32_t>(weights + 2 * f) - Int{});
      for (int v = 0; v < 2; v++) a[f][v] = add_products(a[f][v], x[v], w);
    }
  }
  for (int f = 0; f < FILTERS; f++) {
    for (int v = 0; v < 2; v++) store(sums + f * apart + v * WIDE, a[f][v]);
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
            int last, const int32_t* sums, int room = TILE) {
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
    for (int v = 0; v < room; v += LANES) {
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
      std::memcpy(out.data + place + v, &both, std::min(LANES, room - v) * sizeof(int16_t));
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
  ptq::in_parallel(tiles * shares, threads, [&](int job) {
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
          for (int set = 0; set < layer.sets(); set++) {
            size_t place = (size_t)block * layer.sets() + set;
            const int16_t* weights = &layer.weights[place * FILTERS * ROWS];
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

// The same by transformed weights; a piece of work is a strip of two rows of outputs.
void convolve_squares(const PtqLayer& layer, const PtqMap& in, const PtqMap& out,
                      const PtqEnd& end, int threads) {
  using ptq::PLACES, ptq::SQUARES;
  int row = row_of(out), strips = (row + TILE - 1) / TILE, doubles = (out.height + 1) / 2;
  int pairs = layer.pairs(), filters = layer.sets() * FILTERS;
  Sources sources(layer, in, out);
  ptq::in_parallel(out.images * doubles * strips, threads, [&](int job) {
    static thread_local Aligned<int16_t> pair_memory;
    static thread_local Aligned<int32_t> sum_memory;
    int n = job / strips / doubles, y = job / strips % doubles * 2, x = job % strips * TILE;
    int squares = round_up(std::min(SQUARES, (row - x + 1) / 2), COLUMNS);
    int16_t* inputs = pair_memory.get((size_t)PLACES * SQUARES * pairs * 2);
    for (int pair = 0; pair < pairs; pair++) {
      alignas(64) int16_t made[2][PLACES][SQUARES] = {};
      for (int i = 0; i < std::min(2, layer.inputs - 2 * pair); i++) {
        const int16_t* rows[4];
        for (int k = 0; k < 4; k++) {  // below a picture is one row of zeros
          int64_t from = n * image_of(in) + std::min(y - 1 + k, in.height) * row_of(in) + x - 1;
          rows[k] = channel(in, 2 * pair + i) + lead_of(in) + from;
        }
        ptq::transform_inputs(rows, squares, made[i]);
      }
      for (int k = 0; k < PLACES; k++) {
        for (int at = 0; at < squares; at += LANES) {
          size_t place = ((size_t)k * SQUARES + at / COLUMNS * COLUMNS) * pairs + pair * COLUMNS;
          interleave(load<Short>(made[0][k] + at), load<Short>(made[1][k] + at),
                     inputs + (place + at % COLUMNS) * 2);
        }
      }
    }
    int32_t* sums = sum_memory.get((size_t)filters * (PLACES * SQUARES + 2 * TILE));
    int32_t *upper = sums + (size_t)filters * PLACES * SQUARES, *lower = upper + filters * TILE;
    std::memset(sums, 0, (size_t)filters * PLACES * SQUARES * sizeof *sums);
    for (int k = 0; k < PLACES; k++) {
      for (int at = 0; at < squares; at += COLUMNS) {
        const int16_t* from = inputs + ((size_t)k * SQUARES + at) * pairs * 2;
        for (int set = 0; set < layer.sets(); set++) {
          const int16_t* weights = &layer.weights[((size_t)k * layer.sets() + set) * pairs * FILTERS * 2];
          add_dense(weights, from, pairs, sums + ((size_t)set * FILTERS * PLACES + k) * SQUARES + at,
                    PLACES * SQUARES);
        }
      }
    }
    for (int f = 0; f < layer.outputs; f++) {
      auto m = (const int32_t(*)[SQUARES])(sums + (size_t)f * PLACES * SQUARES);
      ptq::transform_sums(m, squares, upper + f * TILE, lower + f * TILE);
    }
    int room = std::min(TILE, row - x);
    for (int i = 0; i < std::min(2, out.height - y); i++) {
      int64_t position = n * image_of(out) + (int64_t)(y + i) * row + x;
      Filler filler(sources);
      filler.move_to(position, room);
      finish(end, out, filler, position, 0, layer.outputs, i ? lower : upper, room);
    }
    for (int f = 0; end.out && y + 2 >= out.height && f < layer.outputs; f++) {
      int64_t below = n * image_of(out) + (int64_t)out.height * row + x;
      std::memset(channel(out, f) + lead_of(out) + below, 0, room * sizeof(int16_t));
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
  layer->winograd = layer->is_square() && make_transformed(*layer, codes);
  if (!layer->winograd) dense ? make_weights(*layer, codes) : make_lists(*layer, codes);
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
  (layer->winograd ? convolve_squares : convolve)(*layer, *in, out, *end, threads);
  return 0;
}
}
