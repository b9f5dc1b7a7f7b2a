#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "rocksdb/sst_footer.hpp"

namespace kumo::rocksdb {

// What a table file says about itself in its properties block.
struct SstProperties {
  std::uint64_t file_size = 0;
  TableKind kind = TableKind::kBlockBased;
  std::uint32_t format_version = 0;
  ChecksumType checksum = ChecksumType::kNone;

  std::string db_id;
  std::string db_session_id;
  std::string db_host_id;
  std::uint64_t original_file_number = 0;

  std::uint64_t creation_time = 0;
  std::uint64_t file_creation_time = 0;
  std::uint64_t oldest_key_time = 0;

  std::uint64_t num_entries = 0;
  std::uint64_t num_deletions = 0;
  std::uint64_t num_merge_operands = 0;
  std::uint64_t num_range_deletions = 0;
  std::uint64_t raw_key_size = 0;
  std::uint64_t raw_value_size = 0;
  std::uint64_t data_size = 0;
  std::uint64_t index_size = 0;
  std::uint64_t filter_size = 0;

  std::optional<std::uint64_t> column_family_id;
  std::string column_family_name;
  std::string comparator;
  std::string compression;

  // Set on files made by an SstFileWriter; not zero when ingestion wrote into the file.
  std::optional<std::uint64_t> global_seqno;

  // True if database id, session id and original file number name this file's content: all three
  // are there, and nothing was written into the file after it was made.
  [[nodiscard]] bool identity_complete() const noexcept;
};

// Reads the end of the file only: footer, metaindex, properties. Block checksums are verified.
[[nodiscard]] SstProperties read_sst_properties(const std::filesystem::path& path);

}  // namespace kumo::rocksdb
