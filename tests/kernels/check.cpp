// Checks the kernels against plain loops, as a program: for sanitizers, and for CPUs that are not
// here (tests/kernels/test_sources.py builds and runs it). Prints how many cases there were.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../ptq_det/kernels/maps.h"

struct PtqLayer;
extern "C" {
int64_t ptq_plane(const PtqMap*);
int64_t ptq_lead(const PtqMap*);
PtqLayer* ptq_layer(const int32_t*, const int8_t*, int32_t);
void ptq_free(PtqLayer*);
int32_t ptq_convolve(const PtqLayer*, const PtqMap*, const PtqMap*, const PtqEnd*, int32_t);
void ptq_from_floats(const float*, const PtqMap*, float, int32_t);
void ptq_max_pool(const PtqMap*, const PtqMap*, int32_t, int32_t, int32_t, int32_t);
void ptq_upsample(const PtqMap*, const PtqMap*, int32_t);
void ptq_pixels(const PtqMap*, int16_t*, int32_t);
void ptq_roi_align(const PtqLevel*, const int32_t*, const float*, int32_t, int32_t, int32_t, int32_t,
                   const PtqMap*, int32_t, int32_t);
void ptq_paste(const float*, const float*, int32_t, int32_t, int32_t, int32_t, float, uint8_t*,
               int32_t);
}

static uint64_t state = 1;
static int number(int low, int high) {  // from low to high
  state = state * 6364136223846793005u + 1442695040888963407u;
  return low + (int)((state >> 33) % (uint64_t)(high - low + 1));
}

struct Owned {
  PtqMap map;
  std::vector<int16_t> memory;
  Owned(int images, int channels, int height, int width, int low, int high) {
    map = {nullptr, channels, images, height, width, low, high};
    memory.assign(channels * ptq_plane(&map) + 32, 0);
    // Aligned as maps of the package are.
    map.data = (int16_t*)(((uintptr_t)memory.data() + 63) / 64 * 64);
  }
  int16_t& at(int n, int c, int y, int x) {
    int64_t row = map.width + 1, image = (map.height + 1) * row;
    return map.data[c * ptq_plane(&map) + ptq_lead(&map) + n * image + y * row + x];
  }
  void fill() {
    for (int n = 0; n < map.images; n++)
      for (int c = 0; c < map.channels; c++)
        for (int y = 0; y < map.height; y++)
          for (int x = 0; x < map.width; x++) {
            int pick = number(0, 9);  // many at the limits
            at(n, c, y, x) = pick == 0 ? map.low : pick == 1 ? map.high : number(map.low, map.high);
          }
  }
};

static void fail(const char* what) {
  std::printf("wrong: %s\n", what);
  std::exit(1);
}

static void convolution(bool dense, bool square = false) {
  int kernel[2], stride[2], padding[2], dilation[2], in[2], out[2];
  for (int i = 0; i < 2; i++) {
    kernel[i] = number(1, 5), stride[i] = number(1, 3), dilation[i] = number(1, 2);
    padding[i] = number(0, 3), in[i] = number(1, 40);
    if (number(0, 1)) stride[i] = dilation[i] = 1, padding[i] = kernel[i] / 2;
    if (square) kernel[i] = 3, stride[i] = dilation[i] = padding[i] = 1;
    int reach = dilation[i] * (kernel[i] - 1) + 1;
    in[i] = std::max(in[i], reach - 2 * padding[i]);
    out[i] = (in[i] + 2 * padding[i] - reach) / stride[i] + 1;
  }
  if (square) in[1] = out[1] = number(1, 150);
  int inputs = number(square ? 16 : 1, 70), filters = number(1, 140), images = number(1, 2);
  int high = number(0, 1) ? 511 : 32767, low = number(0, 1) ? 0 : -high, zeros = number(0, 10);
  if (dense) high = 4095, low = -4095;
  std::vector<int8_t> codes(filters * inputs * kernel[0] * kernel[1]);
  for (auto& code : codes) {
    code = number(1, 10) <= zeros ? 0 : dense ? number(-127, 127) : number(0, 1) ? 1 : -1;
  }
  int32_t geometry[] = {inputs, filters, kernel[0], kernel[1], stride[0], stride[1], padding[0],
                        padding[1], dilation[0], dilation[1], low, high};
  Owned x(images, inputs, in[0], in[1], low, high), y(images, filters, out[0], out[1], -900, 900);
  x.fill();
  for (auto& code : y.memory) code = 77;  // so must not margins stay
  y.fill();
  PtqLayer* layer = ptq_layer(geometry, codes.data(), dense);
  if (!layer) fail("a layer was refused");
  std::vector<float> ones(filters, 1), none(filters, 0), half(filters, 0.001f);
  std::vector<float> floats((size_t)images * filters * out[0] * out[1]);
  PtqEnd end = {ones.data(), none.data(), nullptr, 0, 0, nullptr, floats.data()};
  if (ptq_convolve(layer, &x.map, &y.map, &end, number(1, 3))) fail("maps did not fit");
  Owned before = y;
  before.map.data = (int16_t*)(((uintptr_t)before.memory.data() + 63) / 64 * 64);
  for (int i = 0; i < (int)y.memory.size() - 32; i++) before.map.data[i] = y.map.data[i];
  end = {half.data(), ones.data(), &y.map, 0.5f, 0, &y.map, nullptr};
  if (ptq_convolve(layer, &x.map, &y.map, &end, number(1, 3))) fail("maps did not fit");
  size_t place = 0;
  for (int n = 0; n < images; n++)
    for (int f = 0; f < filters; f++)
      for (int oy = 0; oy < out[0]; oy++)
        for (int ox = 0; ox < out[1]; ox++) {
          int64_t sum = 0;
          const int8_t* code = &codes[(size_t)f * inputs * kernel[0] * kernel[1]];
          for (int c = 0; c < inputs; c++)
            for (int ky = 0; ky < kernel[0]; ky++)
              for (int kx = 0; kx < kernel[1]; kx++, code++) {
                int iy = oy * stride[0] + ky * dilation[0] - padding[0];
                int ix = ox * stride[1] + kx * dilation[1] - padding[1];
                if (iy < 0 || iy >= in[0] || ix < 0 || ix >= in[1]) continue;
                sum += *code * x.at(n, c, iy, ix);
              }
          if (floats[place++] != (float)sum) fail("a sum");
          double want = sum * 0.001 + 1 + 0.5 * before.at(n, f, oy, ox);
          want = std::min(std::max(want, -900.0), 900.0);
          double off = want - y.at(n, f, oy, ox);
          if (off > 0.51 || off < -0.51) fail("a code");
        }
  int64_t row = out[1] + 1, image = (out[0] + 1) * row, lead = ptq_lead(&y.map);
  for (int f = 0; f < filters; f++)
    for (int64_t p = 0; p < ptq_plane(&y.map); p++) {
      int64_t n = (p - lead) / image, rest = (p - lead) % image;
      bool pixel = p >= lead && n < images && rest / row < out[0] && rest % row < out[1];
      if (!pixel && y.map.data[f * ptq_plane(&y.map) + p]) fail("a margin");
    }
  ptq_free(layer);
}

static void pasting() {
  int count = number(0, 6), side = number(1, 28), height = number(1, 60), width = number(1, 60);
  std::vector<float> masks(count * side * side, 1), boxes(4 * count);
  for (auto& corner : boxes) {
    int pick = number(0, 40);
    corner = pick ? number(-400, 1000) / 10.f : number(0, 1) ? 1 / 0.f : 0 / 0.f;
  }
  std::vector<uint8_t> pictures(count * height * width);
  ptq_paste(masks.data(), boxes.data(), count, side, height, width, 0.5f, pictures.data(), 2);
  for (int i = 0; i < count; i++) {
    const float* box = &boxes[4 * i];
    for (int y = 0; y < height; y++)
      for (int x = 0; x < width; x++) {
        bool inside = x + .5f > box[0] && x + .5f < box[2] && y + .5f > box[1] && y + .5f < box[3];
        bool finite = box[2] - box[0] < 1e9f && box[3] - box[1] < 1e9f;
        // Beyond its samples a mask falls from 1 to 0: it may end in a corner of the box.
        bool deep = x + .5f > box[0] + (box[2] - box[0]) / (2 * side) &&
                    x + .5f < box[2] - (box[2] - box[0]) / (2 * side) &&
                    y + .5f > box[1] + (box[3] - box[1]) / (2 * side) &&
                    y + .5f < box[3] - (box[3] - box[1]) / (2 * side);
        bool found = pictures[(i * height + y) * width + x];
        if (finite && deep && !found) fail("a hole in a mask");
        if (finite && !inside && found) fail("a mask beyond its box");
      }
  }
}

static void detector() {
  Owned x(2, number(1, 70), number(1, 30), number(1, 30), 0, 511);
  x.fill();
  const PtqMap& m = x.map;
  std::vector<float> floats((size_t)2 * m.channels * m.height * m.width);
  for (auto& value : floats) value = number(-10000, 10000) / 7.f;
  Owned made(2, m.channels, m.height, m.width, -255, 255);
  ptq_from_floats(floats.data(), &made.map, 0.5f, 2);
  Owned pooled(2, m.channels, (m.height - 1) / 2 + 1, (m.width - 1) / 2 + 1, 0, 511);
  ptq_max_pool(&m, &pooled.map, 3, 2, 1, 2);
  Owned larger(2, m.channels, 2 * m.height - number(0, 1), 2 * m.width - number(0, 1), 0, 511);
  ptq_upsample(&m, &larger.map, 2);
  std::vector<int16_t> pixels((size_t)2 * m.height * m.width * ((m.channels + 63) / 64 * 64));
  ptq_pixels(&m, pixels.data(), 2);
  PtqLevel level = {pixels.data(), m.height, m.width, 0.25f};
  std::vector<float> boxes;
  std::vector<int32_t> levels(20, 0);
  for (int i = 0; i < 20; i++) {
    boxes.push_back(number(0, 1));
    for (int k = 0; k < 4; k++) boxes.push_back(number(-200, 900) / 4.f);
  }
  for (int flat = 0; flat < 2; flat++) {
    Owned out(flat ? 1 : 20, m.channels * (flat ? 49 : 1), flat ? 3 : 7, 7, 0, 511);
    for (int aligned = 0; aligned < 2; aligned++) {
      ptq_roi_align(&level, levels.data(), boxes.data(), 20, number(0, 2), aligned, 7, &out.map,
                    flat, 2);
    }
  }
  for (int i = 0; i < 50; i++) {
    int n = number(0, 1), c = number(0, m.channels - 1);
    int y = number(0, m.height - 1), w = number(0, m.width - 1);
    if (pixels[(((size_t)n * m.height + y) * m.width + w) * ((m.channels + 63) / 64 * 64) + c] !=
        x.at(n, c, y, w))
      fail("a pixel");
    if (larger.at(n, c, 2 * y, 2 * w) != x.at(n, c, y, w)) fail("a larger map");
    if (pooled.at(n, c, y / 2, w / 2) < x.at(n, c, y / 2 * 2, w / 2 * 2)) fail("a largest code");
  }
}

int main(int count, char** words) {
  int cases = count > 1 ? std::atoi(words[1]) : 100;
  for (int i = 0; i < cases; i++) {
    convolution(i % 3, i % 3 == 2);
    detector();
    pasting();
  }
  std::printf("%d cases\n", cases);
}
