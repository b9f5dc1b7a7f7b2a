#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "rocksdb/log_reader.hpp"

namespace kumo::rocksdb {

// What a write-ahead log holds, from its record headers alone.
struct WalInfo {
  std::uint64_t file_size = 0;
  std::uint64_t valid_bytes = 0;
  std::uint64_t records = 0;  // write batches
  std::uint64_t entries = 0;  // operations in them
  // Places where sequence numbers are skipped between batches: writes that are in no log
  // (disableWAL), or ingested files.
  std::uint64_t holes = 0;

  // Absent in a log without batches, and in a compressed one, whose headers cannot be seen.
  std::optional<std::uint64_t> first_sequence;
  std::optional<std::uint64_t> last_sequence;
  // Operations in the batch that `last_sequence` comes from.
  std::uint64_t last_entries = 0;

  LogTail tail = LogTail::kClean;
  std::uint64_t tail_offset = 0;
  std::string tail_problem;
  bool compressed = false;
  bool recycled = false;
  std::optional<PredecessorWal> predecessor;
};

// Reads the whole log in constant memory. A damaged or unfinished end is reported, not thrown.
[[nodiscard]] WalInfo scan_wal(const std::filesystem::path& path);

}  // namespace kumo::rocksdb
