#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace kumo::rocksdb {

// Header and footer of a blob file.
struct BlobFileInfo {
  std::uint64_t file_size = 0;
  std::uint32_t version = 0;
  std::uint32_t column_family_id = 0;
  std::uint8_t compression = 0;
  bool has_ttl = false;

  // From the footer, which only a closed (from then on immutable) file has.
  std::optional<std::uint64_t> blob_count;

  [[nodiscard]] bool closed() const noexcept { return blob_count.has_value(); }
};

// Reads 62 bytes. Throws FormatError for a damaged header, or a footer whose CRC does not match.
[[nodiscard]] BlobFileInfo read_blob_file(const std::filesystem::path& path);

}  // namespace kumo::rocksdb
