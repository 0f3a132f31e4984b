// What a layer is made into: lists of rows, or weights to multiply by.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "winograd.h"

struct PtqLayer {
  struct Item {  // rows of a list: first those added to a filter's sums, then those subtracted
    uint16_t filter, plus, minus;
  };
  struct Start {  // of a group's part of a block
    uint32_t item, row;
  };
  int32_t inputs, outputs, kernel[2], stride[2], padding[2], dilation[2], low, high;
  bool dense, winograd;
  std::vector<uint16_t> rows;
  std::vector<Item> items;
  std::vector<Start> starts;      // of each block and group, and the end
  std::vector<int16_t> weights;   // dense: of each block, FILTERS and pair of rows; transformed
                                  // ones of each place, FILTERS and pair of inputs
  int taps() const { return kernel[0] * kernel[1]; }
  int depth() const { return inputs * taps(); }
  int blocks() const { return (depth() + ROWS - 1) / ROWS; }
  int block() const {  // rows of a block, an even number
    return ((depth() + blocks() - 1) / blocks() + 1) / 2 * 2;
  }
  int groups() const { return (outputs + GROUP - 1) / GROUP; }
  int sets() const { return (outputs + FILTERS - 1) / FILTERS; }
  int pairs() const { return (inputs + 1) / 2; }  // of inputs
  // Whether it is one that winograd.h knows; where inputs are few, to transform them takes longer.
  bool is_square() const {
    int ones[] = {padding[0], padding[1], dilation[0], dilation[1], stride[0], stride[1]};
    return dense && kernel[0] == 3 && kernel[1] == 3 && inputs >= 16 && outputs >= 16 &&
           std::all_of(ones, ones + 6, [](int each) { return each == 1; });
  }
};

namespace {

using Item = PtqLayer::Item;
using Start = PtqLayer::Start;

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
  int depth = layer.depth(), sets = layer.sets();
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

// False where a product or a sum could leave its type.
bool make_transformed(PtqLayer& layer, const int8_t* codes) {
  int largest = std::max(layer.high, -layer.low);
  if (largest > INT16_MAX / ptq::GROWTH) return false;
  layer.weights.assign((size_t)ptq::PLACES * layer.sets() * layer.pairs() * FILTERS * 2, 0);
  for (int f = 0; f < layer.outputs; f++) {
    int64_t sums[ptq::PLACES] = {}, whole = 0;
    for (int c = 0; c < layer.inputs; c++, codes += 9) {
      int made[ptq::PLACES];
      ptq::transform_weights(codes, made);
      for (int k = 0; k < ptq::PLACES; k++) {
        size_t set = (size_t)k * layer.sets() + f / FILTERS;
        size_t place = ((set * layer.pairs() + c / 2) * FILTERS + f % FILTERS) * 2 + c % 2;
        layer.weights[place] = made[k], sums[k] += std::abs(made[k]);
      }
      for (int i = 0; i < 9; i++) whole += std::abs(codes[i]);
    }
    int64_t most = std::max(*std::max_element(sums, sums + ptq::PLACES), whole);
    if (most * largest * ptq::GROWTH > INT32_MAX) return false;
  }
  return true;
}

}  // namespace
