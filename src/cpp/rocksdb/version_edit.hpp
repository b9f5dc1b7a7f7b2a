#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kumo::rocksdb {

class Cursor;

// A table file as the MANIFEST records it.
struct SstFile {
  std::uint32_t column_family_id = 0;
  std::uint32_t level = 0;
  std::uint64_t number = 0;
  std::uint64_t size = 0;
  std::uint32_t path_id = 0;  // index into db_paths; 0 is the database directory

  std::string smallest_key;  // user keys
  std::string largest_key;
  std::uint64_t smallest_seqno = 0;
  std::uint64_t largest_seqno = 0;

  std::string file_checksum;  // both empty unless the database has a checksum generator
  std::string file_checksum_func_name;
  std::string unique_id;
  std::uint64_t oldest_ancester_time = 0;  // spelt as in RocksDB
  std::uint64_t file_creation_time = 0;
  std::uint64_t epoch_number = 0;
  std::uint64_t oldest_blob_file_number = 0;  // 0: none
  std::uint8_t temperature = 0;
};

// A blob file as the MANIFEST records it.
struct BlobFile {
  std::uint32_t column_family_id = 0;
  std::uint64_t number = 0;
  std::uint64_t total_count = 0;
  std::uint64_t total_bytes = 0;
  std::uint64_t garbage_count = 0;
  std::uint64_t garbage_bytes = 0;
  std::string checksum_method;
  std::string checksum_value;
};

// One MANIFEST record: a set of changes to the state of one column family.
struct VersionEdit {
  std::uint32_t column_family_id = 0;
  std::optional<std::string> column_family_added;
  bool column_family_dropped = false;
  std::optional<std::uint32_t> remaining_in_group;  // set on members of an atomic group

  std::optional<std::string> db_id;
  std::optional<std::string> comparator;
  std::optional<std::uint64_t> log_number;
  std::optional<std::uint64_t> prev_log_number;
  std::optional<std::uint64_t> next_file_number;
  std::optional<std::uint64_t> last_sequence;
  std::optional<std::uint64_t> min_log_number_to_keep;
  std::optional<std::uint32_t> max_column_family;
  std::optional<std::string> full_history_ts_low;
  std::optional<bool> persist_user_defined_timestamps;

  std::vector<SstFile> new_files;
  std::vector<std::pair<std::uint32_t, std::uint64_t>> deleted_files;  // level, number
  std::vector<BlobFile> blob_additions;
  std::vector<BlobFile> blob_garbage;  // number and garbage fields only
  // WAL number, bytes known to be synced.
  std::vector<std::pair<std::uint64_t, std::optional<std::uint64_t>>> wal_additions;
  std::optional<std::uint64_t> wals_deleted_before;

  // Where in the record path ids are that are not 0: each is one byte.
  std::vector<std::uint64_t> path_id_offsets;
};

// Decodes a record as its fragments arrive, so that a record of any size (a new MANIFEST lists all
// files of a column family in one) needs no second copy of itself.
class VersionEditDecoder {
 public:
  void begin();
  void feed(std::string_view bytes);
  // The edit of the bytes fed since begin().
  [[nodiscard]] VersionEdit finish();

 private:
  void decode_available(std::string_view bytes, bool complete);
  void decode_field(Cursor& cursor);
  bool decode_number(std::uint32_t tag, Cursor& cursor);
  bool decode_file(std::uint32_t tag, Cursor& cursor);
  bool decode_column_family(std::uint32_t tag, Cursor& cursor);
  bool decode_wal(std::uint32_t tag, Cursor& cursor);
  SstFile decode_new_file(std::uint32_t tag, Cursor& cursor);
  void decode_custom_fields(SstFile& file, Cursor& cursor, std::uint64_t& path_id_end);

  VersionEdit edit_;
  std::uint64_t done_ = 0;    // bytes of the record that are decoded
  std::string pending_;       // the beginning of a field
  std::uint64_t needed_ = 0;  // bytes of it that it takes to get further
};

}  // namespace kumo::rocksdb
