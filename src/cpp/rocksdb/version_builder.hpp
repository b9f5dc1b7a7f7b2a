#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "rocksdb/manifest.hpp"

namespace kumo::rocksdb {

// Applies version edits in order, as RocksDB's recovery does. Throws DecodeError for an edit that
// contradicts the state, which means a damaged MANIFEST.
class VersionBuilder {
 public:
  VersionBuilder();

  // `end` is where the edit's record ends in the file.
  void add(VersionEdit edit, std::uint64_t end);

  // Edits of an atomic group whose last member has not come yet.
  [[nodiscard]] bool inside_group() const noexcept { return !group_.empty(); }
  // Forgets them: they will be added again, from their first one on.
  void leave_group() noexcept { group_.clear(); }

  // Where the last edit that was applied ends.
  [[nodiscard]] std::uint64_t valid_bytes() const noexcept { return state_.valid_bytes; }

  // What the edits since the last call did.
  [[nodiscard]] ManifestChanges take_changes();

  // The state; ends the builder's use.
  [[nodiscard]] ManifestState finish();

 private:
  struct Family {
    ColumnFamily info;
    std::unordered_map<std::uint64_t, SstFile> ssts;
    std::map<std::uint64_t, BlobFile> blobs;
  };

  void apply(VersionEdit edit);
  [[nodiscard]] std::uint64_t oldest_unflushed_wal() const noexcept;
  [[nodiscard]] std::uint64_t needed_wal() const noexcept;
  void note_changes(const Family& family, const VersionEdit& edit);
  void apply_numbers(VersionEdit& edit);
  void apply_wals(const VersionEdit& edit);
  static void apply_blobs(Family& family, VersionEdit& edit);
  void apply_ssts(Family& family, VersionEdit& edit);
  void drop_ssts(const Family& family);
  void remove_table(std::uint64_t number);
  static void collect_live_blobs(const Family& family, std::vector<BlobFile>& out);

  ManifestState state_;
  ManifestChanges changes_;
  std::unordered_map<std::uint64_t, std::uint64_t> added_tables_;  // number, size
  std::map<std::uint32_t, Family> families_;
  std::vector<VersionEdit> group_;
  std::uint32_t group_size_ = 0;
  std::uint64_t wals_deleted_before_ = 0;
  bool has_log_number_ = false;
  bool has_next_file_number_ = false;
  bool has_last_sequence_ = false;
};

}  // namespace kumo::rocksdb
