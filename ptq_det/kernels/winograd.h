// Dense 3 x 3 convolutions with 2.25 times fewer products: Winograd's F(2 x 2, 3 x 3) (Lavin and
// Gray, arXiv 1509.09308, section 4.1), exact on integers. Weights are transformed by 2G in place of
// G, so that they stay whole; sums are four times what they should be, and divided in the end.
#pragma once
#include <vector>

#include "maps.h"

namespace ptq {

constexpr int PLACES = 16;         // of a transformed 4 x 4 square
constexpr int SQUARES = TILE / 2;  // of 2 x 2 outputs, that one piece of work has at most
constexpr int GROWTH = 4;          // of inputs and of sums, at most

// 2G g (2G)^T of a 3 x 3 kernel.
inline void transform_weights(const int8_t* g, int to[PLACES]) {
  int rows[4][3];
  for (int j = 0; j < 3; j++) {
    int sum = g[j] + g[6 + j], middle = g[3 + j];
    rows[0][j] = 2 * g[j], rows[1][j] = sum + middle;
    rows[2][j] = sum - middle, rows[3][j] = 2 * g[6 + j];
  }
  for (int i = 0; i < 4; i++) {
    int sum = rows[i][0] + rows[i][2], middle = rows[i][1];
    to[4 * i] = 2 * rows[i][0], to[4 * i + 1] = sum + middle;
    to[4 * i + 2] = sum - middle, to[4 * i + 3] = 2 * rows[i][2];
  }
}

// B^T d B of each square of a strip: of four rows of inputs from the column before the first one.
inline void transform_inputs(const int16_t* const rows[4], int squares,
                             int16_t to[PLACES][SQUARES]) {
  constexpr int WIDTH = TILE + 2 * LANES;
  alignas(64) int16_t sums[4][WIDTH];
  for (int x = 0; x < 2 * squares + 2; x += LANES) {
    Short d[4];
    for (int i = 0; i < 4; i++) d[i] = load<Short>(rows[i] + x);
    store(sums[0] + x, d[0] - d[2]), store(sums[1] + x, d[1] + d[2]);
    store(sums[2] + x, d[2] - d[1]), store(sums[3] + x, d[1] - d[3]);
  }
  for (int i = 0; i < 4; i++) {
    for (int at = 0; at < squares; at += LANES) {
      Short d[4];
      for (int j = 0; j < 4; j++) d[j] = every_second(sums[i] + 2 * at + j);
      store(to[4 * i] + at, d[0] - d[2]), store(to[4 * i + 1] + at, d[1] + d[2]);
      store(to[4 * i + 2] + at, d[2] - d[1]), store(to[4 * i + 3] + at, d[1] - d[3]);
    }
  }
}

// A^T m A / 4: two rows of outputs. What is too large in between wraps around, and back.
inline void transform_sums(const int32_t m[PLACES][SQUARES], int squares, int32_t* upper,
                           int32_t* lower) {
  using Wrapping = uint32_t __attribute__((vector_size(VECTOR)));
  for (int at = 0; at < squares; at += WIDE) {
    Wrapping rows[2][4];
    for (int j = 0; j < 4; j++) {
      Wrapping c[4];
      for (int i = 0; i < 4; i++) c[i] = load<Wrapping>(m[4 * i + j] + at);
      rows[0][j] = c[0] + c[1] + c[2], rows[1][j] = c[1] - c[2] - c[3];
    }
    int32_t* to[2] = {upper + 2 * at, lower + 2 * at};
    for (int i = 0; i < 2; i++) {
      Int even = (Int)(rows[i][0] + rows[i][1] + rows[i][2]) >> 2;
      Int odd = (Int)(rows[i][1] - rows[i][2] - rows[i][3]) >> 2;
      for (int k = 0; k < WIDE; k++) to[i][2 * k] = even[k], to[i][2 * k + 1] = odd[k];
    }
  }
}

}  // namespace ptq
