#pragma once

#include <cstdint>
#include <string_view>

namespace kumo::rocksdb {

// The xxHash family with seed 0, as RocksDB uses it for block checksums. Plain scalar code: the
// blocks read here are a few KiB.
[[nodiscard]] std::uint32_t xxh32(std::string_view data) noexcept;
[[nodiscard]] std::uint64_t xxh64(std::string_view data) noexcept;
[[nodiscard]] std::uint64_t xxh3_64(std::string_view data) noexcept;

}  // namespace kumo::rocksdb
