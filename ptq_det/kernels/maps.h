// Planes of codes: what crosses the C interface, and where pixels are.
#pragma once
#include <algorithm>
#include <cstdint>

#include "vectors.h"

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

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int64_t row_of(const PtqMap& m) { return m.width + 1; }
int64_t image_of(const PtqMap& m) { return (m.height + 1) * row_of(m); }
int64_t lead_of(const PtqMap& m) { return round_up(row_of(m) + 1, 32); }
int64_t positions_of(const PtqMap& m) {
  return std::max<int64_t>(m.images * image_of(m) - row_of(m), 0);
}
int64_t plane_of(const PtqMap& m) {
  int64_t size = round_up(lead_of(m) + positions_of(m) + row_of(m) + 1 + 2 * TILE, 32);
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

}  // namespace
