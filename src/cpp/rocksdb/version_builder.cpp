#include "rocksdb/version_builder.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "rocksdb/coding.hpp"

namespace kumo::rocksdb {
namespace {

// A file named in an error message.
std::string named(const char* kind, std::uint64_t number) {
  return std::string(kind) + " file " + std::to_string(number);
}

}  // namespace

VersionBuilder::VersionBuilder() {
  // The default column family exists without an edit that adds it.
  families_[0].info.name = "default";
}

void VersionBuilder::add(VersionEdit edit, std::uint64_t end) {
  if (edit.remaining_in_group) {
    const std::uint32_t remaining = *edit.remaining_in_group;
    if (group_.empty()) group_size_ = remaining;
    if (remaining > group_size_ || group_.size() != group_size_ - remaining) {
      throw DecodeError("an atomic group of edits has the wrong size");
    }
    group_.push_back(std::move(edit));
    if (remaining != 0) return;
    for (VersionEdit& member : std::exchange(group_, {})) apply(std::move(member));
  } else {
    if (!group_.empty()) throw DecodeError("an edit stands inside an atomic group");
    apply(std::move(edit));
  }
  state_.valid_bytes = end;
}

void VersionBuilder::apply(VersionEdit edit) {
  const std::uint32_t id = edit.column_family_id;
  if (edit.column_family_added) {
    const auto [added, fresh] = families_.try_emplace(id);
    if (!fresh) throw DecodeError("column family " + std::to_string(id) + " is added twice");
    added->second.info.id = id;
    state_.max_column_family = std::max(state_.max_column_family, id);
    added->second.info.name = *edit.column_family_added;
  }
  const auto found = families_.find(id);
  if (found == families_.end()) {
    throw DecodeError("an edit names column family " + std::to_string(id) +
                      ", which does not exist");
  }
  note_changes(found->second, edit);
  if (edit.column_family_dropped) {
    if (id == 0) throw DecodeError("the default column family is dropped");
    drop_ssts(found->second);
    families_.erase(found);
  } else {
    Family& family = found->second;
    ColumnFamily& info = family.info;
    if (edit.comparator) info.comparator = std::move(*edit.comparator);
    if (edit.log_number) info.log_number = std::max(info.log_number, *edit.log_number);
    if (edit.full_history_ts_low) info.full_history_ts_low = std::move(*edit.full_history_ts_low);
    if (edit.persist_user_defined_timestamps) {
      info.persist_user_defined_timestamps = *edit.persist_user_defined_timestamps;
    }
    apply_blobs(family, edit);
    apply_ssts(family, edit);
  }
  apply_wals(edit);
  apply_numbers(edit);
  ++state_.edits;
}

// Must see the family as it was before the edit.
void VersionBuilder::note_changes(const Family& family, const VersionEdit& edit) {
  ++changes_.edits;
  if (edit.column_family_added) changes_.families_added.push_back(*edit.column_family_added);
  if (edit.column_family_dropped) changes_.families_dropped.push_back(family.info.name);
  if (edit.new_files.empty()) {
    // A compaction of nothing but tombstones looks like a deletion of files by hand.
    if (!edit.deleted_files.empty()) ++changes_.removals;
    return;
  }
  if (edit.log_number) {
    ++changes_.flushes;
    return;
  }
  // A compaction's output holds nothing newer than its input; what is ingested may replace files,
  // but has a sequence number of its own.
  std::optional<std::uint64_t> newest_input;
  for (const auto& [level, number] : edit.deleted_files) {
    const auto found = family.ssts.find(number);
    if (found == family.ssts.end()) continue;
    newest_input = std::max(newest_input.value_or(0), found->second.largest_seqno);
  }
  const bool compaction = std::all_of(
      edit.new_files.begin(), edit.new_files.end(),
      [&](const SstFile& sst) { return newest_input && sst.largest_seqno <= *newest_input; });
  if (!compaction) ++changes_.ingestions;
}

void VersionBuilder::apply_numbers(VersionEdit& edit) {
  if (edit.db_id) state_.db_id = std::move(*edit.db_id);
  if (edit.log_number) {
    state_.log_number = std::max(state_.log_number, *edit.log_number);
    has_log_number_ = true;
  }
  if (edit.prev_log_number) state_.prev_log_number = *edit.prev_log_number;
  if (edit.next_file_number) {
    state_.next_file_number = *edit.next_file_number;
    has_next_file_number_ = true;
  }
  if (edit.last_sequence) {
    state_.last_sequence = std::max(state_.last_sequence, *edit.last_sequence);
    has_last_sequence_ = true;
  }
  if (edit.min_log_number_to_keep) {
    state_.min_log_number_to_keep =
        std::max(state_.min_log_number_to_keep, *edit.min_log_number_to_keep);
  }
  if (edit.max_column_family) {
    state_.max_column_family = std::max(state_.max_column_family, *edit.max_column_family);
  }
}

void VersionBuilder::apply_wals(const VersionEdit& edit) {
  for (const auto& [number, synced] : edit.wal_additions) {
    if (number >= wals_deleted_before_) state_.wals[number] = synced;
  }
  if (edit.wals_deleted_before) {
    wals_deleted_before_ = std::max(wals_deleted_before_, *edit.wals_deleted_before);
    state_.wals.erase(state_.wals.begin(), state_.wals.lower_bound(wals_deleted_before_));
  }
}

void VersionBuilder::apply_blobs(Family& family, VersionEdit& edit) {
  for (BlobFile& blob : edit.blob_additions) {
    const std::uint64_t number = blob.number;
    blob.column_family_id = family.info.id;
    if (!family.blobs.emplace(number, std::move(blob)).second) {
      throw DecodeError(named("blob", number) + " is added twice");
    }
  }
  for (const BlobFile& garbage : edit.blob_garbage) {
    const auto found = family.blobs.find(garbage.number);
    if (found == family.blobs.end()) {
      throw DecodeError(named("blob", garbage.number) + " gets garbage but does not exist");
    }
    BlobFile& blob = found->second;
    if (garbage.garbage_count > blob.total_count - blob.garbage_count ||
        garbage.garbage_bytes > blob.total_bytes - blob.garbage_bytes) {
      throw DecodeError(named("blob", garbage.number) + " has more garbage than content");
    }
    blob.garbage_count += garbage.garbage_count;
    blob.garbage_bytes += garbage.garbage_bytes;
  }
}

void VersionBuilder::apply_ssts(Family& family, VersionEdit& edit) {
  for (const auto& [level, number] : edit.deleted_files) {
    const auto found = family.ssts.find(number);
    if (found == family.ssts.end() || found->second.level != level) {
      throw DecodeError(named("table", number) + " is deleted but is not on level " +
                        std::to_string(level));
    }
    family.ssts.erase(found);
    remove_table(number);
  }
  for (SstFile& sst : edit.new_files) {
    const std::uint64_t number = sst.number;
    sst.column_family_id = family.info.id;
    added_tables_[number] = sst.size;
    if (!family.ssts.emplace(number, std::move(sst)).second) {
      throw DecodeError(named("table", number) + " is added twice");
    }
  }
}

void VersionBuilder::drop_ssts(const Family& family) {
  for (const auto& [number, sst] : family.ssts) remove_table(number);
}

void VersionBuilder::remove_table(std::uint64_t number) {
  added_tables_.erase(number);
  changes_.removed_tables.push_back(number);
}

// A blob file is live from the oldest one that a table refers to on, unless it is all garbage.
void VersionBuilder::collect_live_blobs(const Family& family, std::vector<BlobFile>& out) {
  if (family.blobs.empty()) return;
  std::set<std::uint64_t> linked;
  for (const auto& [number, sst] : family.ssts) {
    if (family.blobs.contains(sst.oldest_blob_file_number)) {
      linked.insert(sst.oldest_blob_file_number);
    }
  }
  if (linked.empty()) return;
  for (auto blob = family.blobs.lower_bound(*linked.begin()); blob != family.blobs.end(); ++blob) {
    const BlobFile& file = blob->second;
    if (linked.contains(file.number) || file.garbage_count < file.total_count) out.push_back(file);
  }
}

std::uint64_t VersionBuilder::oldest_unflushed_wal() const noexcept {
  std::uint64_t oldest = UINT64_MAX;
  for (const auto& [id, family] : families_) oldest = std::min(oldest, family.info.log_number);
  return oldest;
}

std::uint64_t VersionBuilder::needed_wal() const noexcept {
  // A database that never flushed has no such number, nor has one of an old RocksDB.
  return state_.min_log_number_to_keep != 0 ? state_.min_log_number_to_keep
                                            : oldest_unflushed_wal();
}

ManifestChanges VersionBuilder::take_changes() {
  changes_.needed_wal_number = needed_wal();
  changes_.valid_bytes = state_.valid_bytes;
  changes_.added_tables.assign(added_tables_.begin(), added_tables_.end());
  added_tables_.clear();
  std::vector<BlobFile> blobs;
  for (const auto& [id, family] : families_) collect_live_blobs(family, blobs);
  for (const BlobFile& blob : blobs) changes_.blob_files.push_back(blob.number);
  return std::exchange(changes_, {});
}

ManifestState VersionBuilder::finish() {
  if (!has_log_number_ || !has_next_file_number_ || !has_last_sequence_) {
    throw DecodeError(std::string("the MANIFEST has no ") +
                      (!has_log_number_         ? "log number"
                       : !has_next_file_number_ ? "next file number"
                                                : "last sequence number") +
                      ": its beginning is missing or incomplete");
  }
  state_.min_wal_number = std::max(state_.min_log_number_to_keep, oldest_unflushed_wal());
  state_.needed_wal_number = needed_wal();
  ManifestState state = std::exchange(state_, {});
  for (auto& [id, family] : families_) {
    collect_live_blobs(family, state.blob_files);
    const std::size_t begin = state.sst_files.size();
    for (auto& [number, sst] : family.ssts) state.sst_files.push_back(std::move(sst));
    std::sort(state.sst_files.begin() + static_cast<std::ptrdiff_t>(begin), state.sst_files.end(),
              [](const SstFile& a, const SstFile& b) {
                return std::tie(a.level, a.number) < std::tie(b.level, b.number);
              });
    family.ssts.clear();
    state.column_families.push_back(std::move(family.info));
  }
  families_.clear();
  return state;
}

}  // namespace kumo::rocksdb
