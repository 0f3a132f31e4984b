// Registers of codes, sums and floats, by the compiler's vector extensions.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

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

}  // namespace
