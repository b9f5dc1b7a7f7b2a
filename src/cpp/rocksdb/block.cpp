#include "rocksdb/block.hpp"

#include <string>

#include "checksum/crc32c.hpp"
#include "rocksdb/coding.hpp"
#include "rocksdb/xxhash.hpp"

namespace kumo::rocksdb {

const char* checksum_name(ChecksumType type) noexcept {
  switch (type) {
    case ChecksumType::kNone:
      return "none";
    case ChecksumType::kCrc32c:
      return "crc32c";
    case ChecksumType::kXxHash:
      return "xxhash";
    case ChecksumType::kXxHash64:
      return "xxhash64";
    case ChecksumType::kXxh3:
      return "xxh3";
  }
  return "unknown";
}

std::uint32_t block_checksum(ChecksumType type, std::string_view block, char last) {
  const auto with_last = [&] {
    std::string whole(block);
    whole.push_back(last);
    return whole;
  };
  switch (type) {
    case ChecksumType::kNone:
      return 0;
    case ChecksumType::kCrc32c: {
      const std::uint32_t crc = checksum::crc32c(block.data(), block.size());
      return mask_crc(checksum::crc32c(&last, 1, crc));
    }
    case ChecksumType::kXxHash:
      return xxh32(with_last());
    case ChecksumType::kXxHash64:
      return static_cast<std::uint32_t>(xxh64(with_last()));
    case ChecksumType::kXxh3:
      // RocksDB leaves the type byte out of the hash and mixes it in with a prime.
      return static_cast<std::uint32_t>(xxh3_64(block)) ^
             static_cast<unsigned char>(last) * 0x6b9083d9U;
  }
  return 0;
}

void visit_block(std::string_view block, const BlockVisitor& visitor) {
  constexpr std::size_t kWord = 4;
  constexpr std::uint32_t kFeatureBits = 0xf0000000U;
  if (block.size() < kWord) throw DecodeError("the block is too small for its restart count");
  const std::uint32_t restarts = load32(block.data() + block.size() - kWord);
  if ((restarts & kFeatureBits) != 0) {
    throw DecodeError("the block uses a layout that metadata blocks do not have");
  }
  if (restarts > (block.size() - kWord) / kWord) {
    throw DecodeError("the restart count does not fit the block");
  }
  Cursor cursor(block.substr(0, block.size() - kWord * (restarts + std::size_t{1})));
  std::string key;
  bool first = true;
  while (!cursor.empty()) {
    const std::uint32_t shared = cursor.varint32();
    const std::uint32_t unshared = cursor.varint32();
    const std::uint32_t value_size = cursor.varint32();
    if (shared > key.size()) throw DecodeError("a key shares more bytes than its predecessor has");
    const std::string_view rest = cursor.take(unshared);
    if (!first && key.compare(shared, std::string::npos, rest) >= 0) {
      throw DecodeError("the keys are not in order");
    }
    key.resize(shared);
    key.append(rest);
    first = false;
    const std::size_t value_offset = cursor.position();
    visitor(key, cursor.take(value_size), value_offset);
  }
}

}  // namespace kumo::rocksdb
