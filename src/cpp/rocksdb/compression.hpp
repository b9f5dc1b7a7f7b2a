#pragma once

#include <array>
#include <cstdint>

namespace kumo::rocksdb {

// RocksDB's name of a compression type as stored in its files, empty if unknown.
[[nodiscard]] constexpr const char* compression_type_name(std::uint8_t type) noexcept {
  constexpr std::array<const char*, 8> kNames = {"NoCompression", "Snappy", "Zlib",   "BZip2",
                                                 "LZ4",           "LZ4HC",  "Xpress", "ZSTD"};
  return type < kNames.size() ? kNames[type] : "";
}

}  // namespace kumo::rocksdb
