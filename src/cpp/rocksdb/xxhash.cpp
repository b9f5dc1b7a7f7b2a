// Written from the published xxHash specification, whose constants and secret these are.
#include "rocksdb/xxhash.hpp"

#include <array>
#include <bit>
#include <cstddef>

#include "rocksdb/coding.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::array<std::uint32_t, 5> kPrime32 = {0x9E3779B1U, 0x85EBCA77U, 0xC2B2AE3DU,
                                                   0x27D4EB2FU, 0x165667B1U};
constexpr std::array<std::uint64_t, 5> kPrime64 = {0x9E3779B185EBCA87U, 0xC2B2AE3D27D4EB4FU,
                                                   0x165667B19E3779F9U, 0x85EBCA77C2B2AE63U,
                                                   0x27D4EB2F165667C5U};

constexpr std::array<unsigned char, 192> kSecretBytes = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

std::uint64_t secret64(std::size_t at) noexcept {
  return load64(reinterpret_cast<const char*>(kSecretBytes.data()) + at);
}
std::uint32_t secret32(std::size_t at) noexcept {
  return load32(reinterpret_cast<const char*>(kSecretBytes.data()) + at);
}

std::uint32_t swap32(std::uint32_t x) noexcept {
  return x >> 24 | (x >> 8 & 0xff00U) | (x << 8 & 0xff0000U) | x << 24;
}
std::uint64_t swap64(std::uint64_t x) noexcept {
  return static_cast<std::uint64_t>(swap32(static_cast<std::uint32_t>(x))) << 32 |
         swap32(static_cast<std::uint32_t>(x >> 32));
}

// The two halves of the 128-bit product, xored; in 32-bit steps, as not every compiler has 128.
std::uint64_t multiply_fold(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t low_a = a & UINT32_MAX, high_a = a >> 32;
  const std::uint64_t low_b = b & UINT32_MAX, high_b = b >> 32;
  const std::uint64_t low = low_a * low_b;
  const std::uint64_t middle = high_a * low_b + (low >> 32);
  const std::uint64_t cross = low_a * high_b + (middle & UINT32_MAX);
  const std::uint64_t high = high_a * high_b + (middle >> 32) + (cross >> 32);
  return high ^ (cross << 32 | (low & UINT32_MAX));
}

std::uint64_t avalanche64(std::uint64_t h) noexcept {
  h = (h ^ h >> 33) * kPrime64[1];
  h = (h ^ h >> 29) * kPrime64[2];
  return h ^ h >> 32;
}
std::uint64_t avalanche3(std::uint64_t h) noexcept {
  h = (h ^ h >> 37) * 0x165667919E3779F9U;
  return h ^ h >> 32;
}

std::uint64_t round64(std::uint64_t acc, std::uint64_t input) noexcept {
  return std::rotl(acc + input * kPrime64[1], 31) * kPrime64[0];
}

std::uint64_t mix16(const char* in, std::size_t secret) noexcept {
  return multiply_fold(load64(in) ^ secret64(secret), load64(in + 8) ^ secret64(secret + 8));
}

std::uint64_t xxh3_up_to_16(const char* in, std::size_t size) noexcept {
  if (size > 8) {
    const std::uint64_t low = load64(in) ^ (secret64(24) ^ secret64(32));
    const std::uint64_t high = load64(in + size - 8) ^ (secret64(40) ^ secret64(48));
    return avalanche3(size + swap64(low) + high + multiply_fold(low, high));
  }
  if (size >= 4) {
    std::uint64_t h = load32(in + size - 4) + (static_cast<std::uint64_t>(load32(in)) << 32);
    h ^= secret64(8) ^ secret64(16);
    h ^= std::rotl(h, 49) ^ std::rotl(h, 24);
    h *= 0x9FB21C651E98DF25U;
    h ^= (h >> 35) + size;
    h *= 0x9FB21C651E98DF25U;
    return h ^ h >> 28;
  }
  if (size > 0) {
    const auto byte = [in](std::size_t i) { return static_cast<unsigned char>(in[i]); };
    const std::uint32_t joined = static_cast<std::uint32_t>(byte(0)) << 16 |
                                 static_cast<std::uint32_t>(byte(size / 2)) << 24 | byte(size - 1) |
                                 static_cast<std::uint32_t>(size) << 8;
    return avalanche64(joined ^ static_cast<std::uint64_t>(secret32(0) ^ secret32(4)));
  }
  return avalanche64(secret64(56) ^ secret64(64));
}

std::uint64_t xxh3_up_to_240(const char* in, std::size_t size) noexcept {
  std::uint64_t acc = size * kPrime64[0];
  if (size <= 128) {
    for (std::size_t i = (size - 1) / 32 + 1; i-- > 0;) {
      acc += mix16(in + 16 * i, 32 * i) + mix16(in + size - 16 * (i + 1), 32 * i + 16);
    }
    return avalanche3(acc);
  }
  for (std::size_t i = 0; i < 8; ++i) acc += mix16(in + 16 * i, 16 * i);
  acc = avalanche3(acc);
  for (std::size_t i = 8; i < size / 16; ++i) acc += mix16(in + 16 * i, 16 * (i - 8) + 3);
  return avalanche3(acc + mix16(in + size - 16, 136 - 17));
}

using Lanes = std::array<std::uint64_t, 8>;

void accumulate(Lanes& acc, const char* in, std::size_t secret) noexcept {
  for (std::size_t i = 0; i < acc.size(); ++i) {
    const std::uint64_t value = load64(in + 8 * i);
    const std::uint64_t keyed = value ^ secret64(secret + 8 * i);
    acc[i ^ 1] += value;
    acc[i] += (keyed & UINT32_MAX) * (keyed >> 32);
  }
}

std::uint64_t xxh3_long(const char* in, std::size_t size) noexcept {
  constexpr std::size_t kStripe = 64;
  constexpr std::size_t kStripes = (kSecretBytes.size() - kStripe) / 8;
  Lanes acc = {kPrime32[2], kPrime64[0], kPrime64[1], kPrime64[2],
               kPrime64[3], kPrime32[1], kPrime64[4], kPrime32[0]};
  const std::size_t stripes = (size - 1) / kStripe;
  for (std::size_t i = 0; i < stripes; ++i) {
    accumulate(acc, in + i * kStripe, i % kStripes * 8);
    if (i % kStripes != kStripes - 1) continue;
    for (std::size_t lane = 0; lane < acc.size(); ++lane) {
      const std::uint64_t mixed =
          acc[lane] ^ acc[lane] >> 47 ^ secret64(kSecretBytes.size() - kStripe + 8 * lane);
      acc[lane] = mixed * kPrime32[0];
    }
  }
  accumulate(acc, in + size - kStripe, kSecretBytes.size() - kStripe - 7);
  std::uint64_t result = size * kPrime64[0];
  for (std::size_t i = 0; i < 4; ++i) {
    result += multiply_fold(acc[2 * i] ^ secret64(11 + 16 * i),
                            acc[2 * i + 1] ^ secret64(11 + 16 * i + 8));
  }
  return avalanche3(result);
}

}  // namespace

std::uint32_t xxh32(std::string_view data) noexcept {
  const char* in = data.data();
  std::size_t left = data.size();
  std::uint32_t h = kPrime32[4];
  if (left >= 16) {
    std::array<std::uint32_t, 4> acc = {kPrime32[0] + kPrime32[1], kPrime32[1], 0, 0 - kPrime32[0]};
    for (; left >= 16; left -= 16) {
      for (std::uint32_t& lane : acc) {
        lane = std::rotl(lane + load32(in) * kPrime32[1], 13) * kPrime32[0];
        in += 4;
      }
    }
    h = std::rotl(acc[0], 1) + std::rotl(acc[1], 7) + std::rotl(acc[2], 12) + std::rotl(acc[3], 18);
  }
  h += static_cast<std::uint32_t>(data.size());
  for (; left >= 4; left -= 4, in += 4) {
    h = std::rotl(h + load32(in) * kPrime32[2], 17) * kPrime32[3];
  }
  for (; left > 0; --left, ++in) {
    h = std::rotl(h + static_cast<unsigned char>(*in) * kPrime32[4], 11) * kPrime32[0];
  }
  h = (h ^ h >> 15) * kPrime32[1];
  h = (h ^ h >> 13) * kPrime32[2];
  return h ^ h >> 16;
}

std::uint64_t xxh64(std::string_view data) noexcept {
  const char* in = data.data();
  std::size_t left = data.size();
  std::uint64_t h = kPrime64[4];
  if (left >= 32) {
    std::array<std::uint64_t, 4> acc = {kPrime64[0] + kPrime64[1], kPrime64[1], 0, 0 - kPrime64[0]};
    for (; left >= 32; left -= 32) {
      for (std::uint64_t& lane : acc) {
        lane = round64(lane, load64(in));
        in += 8;
      }
    }
    h = std::rotl(acc[0], 1) + std::rotl(acc[1], 7) + std::rotl(acc[2], 12) + std::rotl(acc[3], 18);
    for (const std::uint64_t lane : acc) h = (h ^ round64(0, lane)) * kPrime64[0] + kPrime64[3];
  }
  h += data.size();
  for (; left >= 8; left -= 8, in += 8) {
    h = std::rotl(h ^ round64(0, load64(in)), 27) * kPrime64[0] + kPrime64[3];
  }
  if (left >= 4) {
    h = std::rotl(h ^ load32(in) * kPrime64[0], 23) * kPrime64[1] + kPrime64[2];
    in += 4;
    left -= 4;
  }
  for (; left > 0; --left, ++in) {
    h = std::rotl(h ^ static_cast<unsigned char>(*in) * kPrime64[4], 11) * kPrime64[0];
  }
  return avalanche64(h);
}

std::uint64_t xxh3_64(std::string_view data) noexcept {
  if (data.size() <= 16) return xxh3_up_to_16(data.data(), data.size());
  if (data.size() <= 240) return xxh3_up_to_240(data.data(), data.size());
  return xxh3_long(data.data(), data.size());
}

}  // namespace kumo::rocksdb
