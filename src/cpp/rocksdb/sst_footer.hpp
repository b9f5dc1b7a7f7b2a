#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "rocksdb/block.hpp"
#include "rocksdb/file.hpp"

namespace kumo::rocksdb {

enum class TableKind : std::uint8_t { kBlockBased, kPlain, kCuckoo };

struct BlockHandle {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

// The last 48 (legacy) or 53 bytes of a table file.
struct SstFooter {
  TableKind kind = TableKind::kBlockBased;
  std::uint32_t format_version = 0;
  ChecksumType checksum = ChecksumType::kCrc32c;
  std::uint32_t base_context = 0;
  std::uint64_t offset = 0;
  BlockHandle metaindex;

  // Block-based tables end each block with its compression type and checksum; the others do not.
  [[nodiscard]] std::size_t trailer_size() const noexcept {
    return kind == TableKind::kBlockBased ? 5 : 0;
  }
};

// The end of a table file, read in one go; what lies before it is read when asked for.
class SstTail {
 public:
  explicit SstTail(const ReadOnlyFile& file);

  [[nodiscard]] const ReadOnlyFile& file() const noexcept { return file_; }
  [[nodiscard]] std::string read(std::uint64_t offset, std::size_t count) const;

 private:
  const ReadOnlyFile& file_;
  std::uint64_t offset_;
  std::string bytes_;
};

// Reads and checks the footer. Throws FormatError, also for what only newer RocksDB versions write.
[[nodiscard]] SstFooter read_sst_footer(const SstTail& tail);

}  // namespace kumo::rocksdb
