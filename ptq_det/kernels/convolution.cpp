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

#include "maps.h"
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

// Where some rows begin in a tile, in bytes; filled up by the row of zeros.
std::vector<uint16_t> part(const std::vector<uint16_t>& rows, size_t first, size_t count) {
  std::vector<uint16_t> found(rows.begin() + first, rows.begin() + first + count);
  found.resize(round_up(count, UNROLLED), ROWS);
  for (auto& row : found) row *= TILE * sizeof(int16_t);
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
