#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rocksdb/version_edit.hpp"

namespace kumo::rocksdb {

struct ColumnFamily {
  std::uint32_t id = 0;
  std::string name;
  std::string comparator;
  std::uint64_t log_number = 0;
  std::string full_history_ts_low;
  bool persist_user_defined_timestamps = true;
};

// The state of a database after all records of its MANIFEST.
struct ManifestState {
  std::uint64_t file_size = 0;
  // The prefix that makes up this state: whole records, whole atomic groups.
  std::uint64_t valid_bytes = 0;
  std::uint64_t edits = 0;

  std::string db_id;  // empty where options or age keep it out of the MANIFEST
  std::uint64_t log_number = 0;
  std::uint64_t prev_log_number = 0;
  std::uint64_t next_file_number = 0;
  std::uint64_t last_sequence = 0;
  std::uint64_t min_log_number_to_keep = 0;
  std::uint32_t max_column_family = 0;
  // The lowest WAL that recovery reads: nothing older holds unflushed data.
  std::uint64_t min_wal_number = 0;
  // The lowest WAL that RocksDB keeps; with two-phase commit it may be older.
  std::uint64_t needed_wal_number = 0;

  std::vector<ColumnFamily> column_families;  // by id
  std::vector<SstFile> sst_files;             // by column family, level, number
  std::vector<BlobFile> blob_files;           // by column family, number
  // WALs tracked with track_and_verify_wals_in_manifest, with the bytes known to be synced.
  std::map<std::uint64_t, std::optional<std::uint64_t>> wals;
};

// What edits did, for whoever holds the state before them and a later write-ahead log: a log
// replays flushed data and is indifferent to compactions, but not to the rest.
struct ManifestChanges {
  std::uint64_t edits = 0;
  std::vector<std::string> families_added;
  std::vector<std::string> families_dropped;
  std::uint64_t flushes = 0;
  // Files that came from elsewhere (ingestion, import), and edits that only took files away.
  std::uint64_t ingestions = 0;
  std::uint64_t removals = 0;
  // Table files that came and are live now, with their sizes; such that went. A file that moved to
  // another level did both.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> added_tables;
  std::vector<std::uint64_t> removed_tables;

  // The state after them: where it ends in the file, all live blob files, and the lowest WAL that
  // is kept: those below may have been deleted by now.
  std::uint64_t valid_bytes = 0;
  std::vector<std::uint64_t> blob_files;
  std::uint64_t needed_wal_number = 0;
};

// Replays a MANIFEST. `allow_partial`: a file that ends inside a record, in zeros or inside an
// atomic group (it is being appended to) gives the state before that. Anything else that is wrong
// throws FormatError.
[[nodiscard]] ManifestState read_manifest(const std::filesystem::path& path, bool allow_partial);

class VersionBuilder;

// Replays a MANIFEST that another process appends to, a piece at a time.
class ManifestFollower {
 public:
  explicit ManifestFollower(std::filesystem::path path);
  ManifestFollower(ManifestFollower&& other) noexcept;
  ManifestFollower& operator=(ManifestFollower&&) = delete;
  ManifestFollower(const ManifestFollower&) = delete;
  ManifestFollower& operator=(const ManifestFollower&) = delete;
  ~ManifestFollower();

  // Applies the whole records, and whole atomic groups, that were appended since the last call.
  ManifestChanges advance();

 private:
  std::filesystem::path path_;
  std::unique_ptr<VersionBuilder> builder_;
};

}  // namespace kumo::rocksdb
