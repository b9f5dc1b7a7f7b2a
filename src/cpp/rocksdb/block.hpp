#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace kumo::rocksdb {

// The numbers are those of the file format.
enum class ChecksumType : std::uint8_t {
  kNone = 0,
  kCrc32c = 1,
  kXxHash = 2,
  kXxHash64 = 3,
  kXxh3 = 4
};

[[nodiscard]] const char* checksum_name(ChecksumType type) noexcept;

// RocksDB stores CRCs of data that itself holds CRCs, hence the mask.
[[nodiscard]] constexpr std::uint32_t mask_crc(std::uint32_t crc) noexcept {
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

// What the file should hold after a block whose type byte (compression) is `last`.
[[nodiscard]] std::uint32_t block_checksum(ChecksumType type, std::string_view block, char last);

// Binds a checksum to its place in the file (format_version 6 and later; base 0 means unbound).
[[nodiscard]] constexpr std::uint32_t checksum_context(std::uint32_t base,
                                                       std::uint64_t offset) noexcept {
  if (base == 0) return 0;
  return base ^ (static_cast<std::uint32_t>(offset) + static_cast<std::uint32_t>(offset >> 32));
}

// Called with each entry and the offset of its value in the block. The views last for the call.
using BlockVisitor =
    std::function<void(std::string_view key, std::string_view value, std::size_t value_offset)>;

// Walks a key-value block (keys share prefixes, restart points at the end). Throws DecodeError.
void visit_block(std::string_view block, const BlockVisitor& visitor);

}  // namespace kumo::rocksdb
