// What a detector needs between its layers: pictures to codes, pooling, and changes of size.
#include <cmath>
#include <vector>

#include "maps.h"
#include "parallel.h"

namespace {

// Weights of one bin over neighbouring positions: the mean of its samples' bilinear ones.
struct Bin {
  int first, count;
  std::vector<float> weights;
};

void make_bins(float start, float extent, int samples, int size, std::vector<Bin>& bins) {
  float step = extent / bins.size();
  // Detectron2 clips boxes to the picture; whatever else is given is bounded.
  int grid = samples > 0 ? samples : step < 1e4f ? std::max(0, (int)std::ceil(step)) : 10000;
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

// Where pixels from `first` on lie among the samples of a line over (low, high): between
// place[i] and the next of `side` samples that have a zero before and two behind them.
void find_places(float low, float high, int side, int first, std::vector<int>& place,
                 std::vector<float>& part) {
  for (size_t i = 0; i < place.size(); i++) {
    float on = (first + (int)i + .5f - low) / (high - low) * side - .5f;
    on = std::min(std::max(-1.f, on), (float)side);  // what is not a number becomes -1
    place[i] = (int)std::floor(on) + 1;
    part[i] = on - std::floor(on);
  }
}

constexpr int SPAN = 64;  // channels that are pooled at a time
using Sums = Float[SPAN / WIDE];

}  // namespace

extern "C" {

// float32 (images, channels, height, width) to codes: x * scale to the nearest.
void ptq_from_floats(const float* x, const PtqMap* out, float scale, int32_t threads) {
  const PtqMap& m = *out;
  Float low = (float)m.low - Float{}, high = (float)m.high - Float{}, factor = scale - Float{};
  std::memset(m.data, 0, m.channels * plane_of(m) * sizeof *m.data);
  ptq::in_parallel(m.channels * m.images, threads, [&](int i) {
    int c = i % m.channels, n = i / m.channels;
    const float* from = x + (int64_t)i * m.height * m.width;
    int16_t* to = channel(m, c) + lead_of(m) + n * image_of(m);
    for (int y = 0; y < m.height; y++, to += row_of(m), from += m.width) {
      int j = 0;
      for (; j + WIDE <= m.width; j += WIDE) {
        Int codes = to_codes(load<Float>(from + j) * factor, low, high);
        store(to + j, __builtin_convertvector(codes, Half));
      }
      for (; j < m.width; j++) {
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
  ptq::in_parallel(b.channels, threads, [&](int c) {
    std::fill(channel(b, c), channel(b, c) + plane_of(b), 0);
    for (int n = 0; n < b.images; n++) {
      const int16_t* from = channel(a, c) + lead_of(a) + n * image_of(a);
      int16_t* to = channel(b, c) + lead_of(b) + n * image_of(b);
      // Zeros on both sides: as many as a window needs, and a register's for what is read ahead.
      std::vector<int16_t> row(a.width + padding + window + 2 * LANES);
      for (int y = 0; y < b.height; y++, to += row_of(b)) {
        int top = std::max(y * stride - padding, 0);
        int end = std::min(y * stride - padding + window, a.height);
        int16_t* most = row.data() + padding;
        std::copy_n(from + top * row_of(a), a.width, most);
        for (int i = top + 1; i < end; i++) {
          const int16_t* other = from + i * row_of(a);
          for (int x = 0; x < a.width; x++) most[x] = std::max(most[x], other[x]);
        }
        int x = 0;
        for (; stride == 2 && x + LANES <= b.width; x += LANES) {
          Short best = every_second(row.data() + 2 * x);
          for (int i = 1; i < window; i++) {
            Short other = every_second(row.data() + 2 * x + i);
            best = best > other ? best : other;
          }
          store(to + x, best);
        }
        for (; x < b.width; x++) {
          to[x] = *std::max_element(&row[x * stride], &row[x * stride] + window);
        }
      }
    }
  });
}

// Each pixel twice in both directions, as far as `out` goes.
void ptq_upsample(const PtqMap* in, const PtqMap* out, int32_t threads) {
  const PtqMap &a = *in, &b = *out;
  ptq::in_parallel(b.channels, threads, [&](int c) {
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
  ptq::in_parallel(m.images * m.height, threads, [&](int i) {
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
// of `out`, of bins x bins; or, where `flat`, pixel i of a single picture, whose channels
// are (channel, bin, bin). Bilinear weights are separable: a box is averaged along x for each row
// that it touches, then along y.
void ptq_roi_align(const PtqLevel* levels, const int32_t* level_of, const float* boxes,
                   int32_t count, int32_t samples, int32_t aligned, int32_t bins,
                   const PtqMap* out, int32_t flat, int32_t threads) {
  constexpr int N = SPAN / WIDE;
  const PtqMap& m = *out;
  int channels = flat ? m.channels / (bins * bins) : m.channels, area = bins * bins;
  int together = flat ? m.width : 1;  // boxes that are written together: a row of pixels
  int64_t plane = plane_of(m);
  Float low = (float)m.low - Float{}, high = (float)m.high - Float{};
  std::memset(m.data, 0, m.channels * plane_of(m) * sizeof *m.data);
  ptq::in_parallel((count + together - 1) / together, threads, [&](int job) {
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
          size[k] = std::max(corner[k + 2] - corner[k], aligned ? 0.f : 1.f);
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
          int16_t* to = channel(m, (int64_t)(c + k) * area) + lead_of(m) + job * row_of(m);
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

// Masks (n, side, side) over boxes (n, 4: corners in pixels), each into a picture of zeros: 1 where
// the value between its samples, and zeros around them, is at least `threshold`.
void ptq_paste(const float* masks, const float* boxes, int32_t count, int32_t side, int32_t height,
               int32_t width, float threshold, uint8_t* pictures, int32_t threads) {
  ptq::in_parallel(count, threads, [&](int i) {
    const float *box = boxes + 4 * (int64_t)i, *mask = masks + (int64_t)i * side * side;
    const int limit[2] = {width, height};
    int first[2], size[2];
    std::vector<int> place[2];
    std::vector<float> part[2];
    for (int k = 0; k < 2; k++) {  // along x, along y
      if (!(box[k + 2] > box[k])) return;
      float low = std::max(std::floor(box[k]) - 1, 0.f);
      float high = std::min(std::ceil(box[k + 2]) + 1, (float)limit[k]);
      if (!(high > low)) return;
      first[k] = (int)low;
      size[k] = (int)high - first[k];
      place[k].resize(size[k]);
      part[k].resize(size[k]);
      find_places(box[k], box[k + 2], side, first[k], place[k], part[k]);
    }
    std::vector<float> zeros(side), line(side + 3);
    const int* at = place[0].data();
    const float* right = part[0].data();
    for (int y = 0; y < size[1]; y++) {
      int row = place[1][y] - 1;
      const float* upper = row >= 0 && row < side ? mask + row * side : zeros.data();
      const float* lower = row + 1 < side ? mask + (row + 1) * side : zeros.data();
      float most = 0;
      for (int x = 0; x < side; x++) {
        line[x + 1] = upper[x] * (1 - part[1][y]) + lower[x] * part[1][y];
        most = std::max(most, line[x + 1]);
      }
      if (most < threshold) continue;  // memory that stays as it was is never touched
      uint8_t* to = pictures + ((int64_t)i * height + first[1] + y) * width + first[0];
      for (int x = 0; x < size[0]; x++) {
        to[x] = line[at[x]] * (1 - right[x]) + line[at[x] + 1] * right[x] >= threshold;
      }
    }
  });
}
}
