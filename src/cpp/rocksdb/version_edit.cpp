#include "rocksdb/version_edit.hpp"

#include <algorithm>

#include "rocksdb/coding.hpp"

namespace kumo::rocksdb {
namespace {

// Each field is bounded by its record; this bounds what one field may make the reader hold.
constexpr std::size_t kMaxField = std::size_t{16} << 20;

// Unknown tags with this bit are length-prefixed and may be skipped.
constexpr std::uint32_t kIgnorable = 1U << 13;

enum Tag : std::uint16_t {
  kComparator = 1,
  kLogNumber = 2,
  kNextFileNumber = 3,
  kLastSequence = 4,
  kCompactCursor = 5,
  kDeletedFile = 6,
  kNewFile = 7,
  kPrevLogNumber = 9,
  kMinLogNumberToKeep = 10,
  kNewFile2 = 100,
  kNewFile3 = 102,
  kNewFile4 = 103,
  kColumnFamily = 200,
  kColumnFamilyAdd = 201,
  kColumnFamilyDrop = 202,
  kMaxColumnFamily = 203,
  kInAtomicGroup = 300,
  kBlobFileAddition = 400,
  kBlobFileGarbage = 401,
  kDbId = kIgnorable + 1,
  kBlobFileAdditionOld = kIgnorable + 2,
  kBlobFileGarbageOld = kIgnorable + 3,
  kWalAdditionOld = kIgnorable + 4,
  kWalDeletionOld = kIgnorable + 5,
  kFullHistoryTsLow = kIgnorable + 6,
  kWalAddition = kIgnorable + 7,
  kWalDeletion = kIgnorable + 8,
  kPersistUserDefinedTimestamps = kIgnorable + 9,
};

// Fields of a new file (NewFile4).
enum CustomTag : std::uint8_t {
  kTerminate = 1,
  kCustomMinLogNumber = 3,
  kOldestBlobFileNumber = 4,
  kOldestAncesterTime = 5,
  kFileCreationTime = 6,
  kFileChecksum = 7,
  kFileChecksumFuncName = 8,
  kTemperature = 9,
  kUniqueId = 12,
  kEpochNumber = 13,
  kPathId = 65,
};
// Custom fields with this bit must be understood.
constexpr std::uint32_t kMustUnderstand = 1U << 6;
constexpr std::uint32_t kMaxPathId = 3;

std::uint8_t single_byte(std::string_view field, const char* name) {
  if (field.size() != 1) throw DecodeError(std::string(name) + " has the wrong size");
  return static_cast<std::uint8_t>(field[0]);
}

std::string user_key(std::string_view internal) {
  constexpr std::size_t kSequenceAndType = 8;
  if (internal.size() < kSequenceAndType) throw DecodeError("an internal key is too short");
  return std::string(internal.substr(0, internal.size() - kSequenceAndType));
}

// Blob records end in tagged fields that none defines yet; 0 ends them.
void skip_blob_fields(Cursor& cursor) {
  while (const std::uint32_t tag = cursor.varint32()) {
    if ((tag & kMustUnderstand) != 0) {
      throw DecodeError("blob file field " + std::to_string(tag) + " is of a newer RocksDB");
    }
    cursor.length_prefixed();
  }
}

BlobFile decode_blob_addition(Cursor& cursor) {
  BlobFile blob;
  blob.number = cursor.varint64();
  blob.total_count = cursor.varint64();
  blob.total_bytes = cursor.varint64();
  blob.checksum_method = std::string(cursor.length_prefixed());
  blob.checksum_value = std::string(cursor.length_prefixed());
  skip_blob_fields(cursor);
  return blob;
}

BlobFile decode_blob_garbage(Cursor& cursor) {
  BlobFile blob;
  blob.number = cursor.varint64();
  blob.garbage_count = cursor.varint64();
  blob.garbage_bytes = cursor.varint64();
  skip_blob_fields(cursor);
  return blob;
}

std::pair<std::uint64_t, std::optional<std::uint64_t>> decode_wal_addition(Cursor& cursor) {
  constexpr std::uint32_t kSyncedSize = 2;
  std::pair<std::uint64_t, std::optional<std::uint64_t>> wal{cursor.varint64(), std::nullopt};
  for (;;) {
    const std::uint32_t tag = cursor.varint32();
    if (tag == kTerminate) return wal;
    if (tag != kSyncedSize) {
      throw DecodeError("WAL addition field " + std::to_string(tag) + " is of a newer RocksDB");
    }
    wal.second = cursor.varint64();
  }
}

}  // namespace

void VersionEditDecoder::begin() {
  edit_ = {};
  done_ = 0;
  pending_.clear();
  needed_ = 0;
}

void VersionEditDecoder::feed(std::string_view bytes) {
  if (pending_.empty()) {
    decode_available(bytes, false);
    return;
  }
  pending_.append(bytes);
  // Without this, a long field would be tried again with each fragment.
  if (pending_.size() < needed_) return;
  const std::string joined = std::exchange(pending_, {});
  decode_available(joined, false);
}

VersionEdit VersionEditDecoder::finish() {
  const std::string rest = std::exchange(pending_, {});
  decode_available(rest, true);
  return std::exchange(edit_, {});
}

void VersionEditDecoder::decode_available(std::string_view bytes, bool complete) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    Cursor cursor(bytes.substr(done));
    try {
      decode_field(cursor);
    } catch (const Truncated& truncated) {
      if (complete) throw;
      needed_ = truncated.needed();
      break;
    }
    done += cursor.position();
    done_ += cursor.position();
  }
  if (done == bytes.size()) return;
  const std::size_t left = bytes.size() - done;
  if (needed_ > kMaxField || left > kMaxField) throw DecodeError("a field exceeds 16 MiB");
  // A file may have fields without end, each of them short: twice as much for the next attempt
  // makes all of them together take linear time. `finish` decodes what is left.
  needed_ = std::max<std::uint64_t>(needed_, 2 * left);
  pending_.assign(bytes.substr(done));
}

// A field changes the edit only once it is whole: decode_available() may have to retry it.
void VersionEditDecoder::decode_field(Cursor& cursor) {
  const std::uint32_t tag = cursor.varint32();
  if (decode_number(tag, cursor) || decode_file(tag, cursor) || decode_column_family(tag, cursor) ||
      decode_wal(tag, cursor)) {
    return;
  }
  if ((tag & kIgnorable) == 0) {
    throw DecodeError("version edit tag " + std::to_string(tag) +
                      " is unknown: damaged, or of a newer RocksDB");
  }
  cursor.length_prefixed();
}

bool VersionEditDecoder::decode_number(std::uint32_t tag, Cursor& cursor) {
  switch (tag) {
    case kLogNumber:
      edit_.log_number = cursor.varint64();
      return true;
    case kPrevLogNumber:
      edit_.prev_log_number = cursor.varint64();
      return true;
    case kNextFileNumber:
      edit_.next_file_number = cursor.varint64();
      return true;
    case kLastSequence:
      edit_.last_sequence = cursor.varint64();
      return true;
    case kMinLogNumberToKeep:
      edit_.min_log_number_to_keep = cursor.varint64();
      return true;
    case kMaxColumnFamily:
      edit_.max_column_family = cursor.varint32();
      return true;
    case kInAtomicGroup:
      edit_.remaining_in_group = cursor.varint32();
      return true;
    default:
      return false;
  }
}

bool VersionEditDecoder::decode_file(std::uint32_t tag, Cursor& cursor) {
  switch (tag) {
    case kNewFile:
    case kNewFile2:
    case kNewFile3:
    case kNewFile4:
      edit_.new_files.push_back(decode_new_file(tag, cursor));
      return true;
    case kDeletedFile: {
      const std::uint32_t level = cursor.varint32();
      edit_.deleted_files.emplace_back(level, cursor.varint64());
      return true;
    }
    case kCompactCursor:
      cursor.varint32();
      cursor.length_prefixed();
      return true;
    case kBlobFileAddition:
    case kBlobFileAdditionOld:
      edit_.blob_additions.push_back(decode_blob_addition(cursor));
      return true;
    case kBlobFileGarbage:
    case kBlobFileGarbageOld:
      edit_.blob_garbage.push_back(decode_blob_garbage(cursor));
      return true;
    default:
      return false;
  }
}

bool VersionEditDecoder::decode_column_family(std::uint32_t tag, Cursor& cursor) {
  switch (tag) {
    case kDbId:
      edit_.db_id = std::string(cursor.length_prefixed());
      return true;
    case kComparator:
      edit_.comparator = std::string(cursor.length_prefixed());
      return true;
    case kColumnFamily:
      edit_.column_family_id = cursor.varint32();
      return true;
    case kColumnFamilyAdd:
      edit_.column_family_added = std::string(cursor.length_prefixed());
      return true;
    case kColumnFamilyDrop:
      edit_.column_family_dropped = true;
      return true;
    case kFullHistoryTsLow:
      edit_.full_history_ts_low = std::string(cursor.length_prefixed());
      return true;
    case kPersistUserDefinedTimestamps:
      edit_.persist_user_defined_timestamps =
          single_byte(cursor.length_prefixed(), "persist_user_defined_timestamps") == 1;
      return true;
    default:
      return false;
  }
}

bool VersionEditDecoder::decode_wal(std::uint32_t tag, Cursor& cursor) {
  // The length prefix came with the second version of these two.
  switch (tag) {
    case kWalAdditionOld:
      edit_.wal_additions.push_back(decode_wal_addition(cursor));
      return true;
    case kWalDeletionOld:
      edit_.wals_deleted_before = cursor.varint64();
      return true;
    case kWalAddition:
    case kWalDeletion: {
      Cursor inner(cursor.length_prefixed());
      try {
        if (tag == kWalAddition) {
          edit_.wal_additions.push_back(decode_wal_addition(inner));
        } else {
          edit_.wals_deleted_before = inner.varint64();
        }
      } catch (const Truncated&) {
        // The field itself is whole: waiting for more bytes would not help.
        throw DecodeError("a WAL entry runs past its length");
      }
      return true;
    }
    default:
      return false;
  }
}

SstFile VersionEditDecoder::decode_new_file(std::uint32_t tag, Cursor& cursor) {
  SstFile file;
  file.level = cursor.varint32();
  file.number = cursor.varint64();
  std::uint64_t path_id_end = 0;
  if (tag == kNewFile3) {
    file.path_id = cursor.varint32();
    path_id_end = cursor.position();
  }
  file.size = cursor.varint64();
  file.smallest_key = user_key(cursor.length_prefixed());
  file.largest_key = user_key(cursor.length_prefixed());
  if (tag != kNewFile) {
    file.smallest_seqno = cursor.varint64();
    file.largest_seqno = cursor.varint64();
  }
  if (tag == kNewFile4) decode_custom_fields(file, cursor, path_id_end);
  if (file.path_id > kMaxPathId) throw DecodeError("a new file has an impossible path id");
  if (file.path_id != 0) edit_.path_id_offsets.push_back(done_ + path_id_end - 1);
  return file;
}

void VersionEditDecoder::decode_custom_fields(SstFile& file, Cursor& cursor,
                                              std::uint64_t& path_id_end) {
  std::optional<std::uint64_t> min_log_number;
  for (;;) {
    const std::uint32_t tag = cursor.varint32();
    if (tag == kTerminate) break;
    const std::string_view field = cursor.length_prefixed();
    try {
      switch (tag) {
        case kPathId:
          file.path_id = single_byte(field, "path id");
          path_id_end = cursor.position();
          break;
        case kCustomMinLogNumber:
          min_log_number = Cursor(field).fixed64();
          break;
        case kOldestBlobFileNumber:
          file.oldest_blob_file_number = Cursor(field).varint64();
          break;
        case kOldestAncesterTime:
          file.oldest_ancester_time = Cursor(field).varint64();
          break;
        case kFileCreationTime:
          file.file_creation_time = Cursor(field).varint64();
          break;
        case kFileChecksum:
          file.file_checksum = std::string(field);
          break;
        case kFileChecksumFuncName:
          // What RocksDB calls a file that has no checksum.
          if (field != "Unknown") file.file_checksum_func_name = std::string(field);
          break;
        case kTemperature:
          file.temperature = single_byte(field, "temperature");
          break;
        case kUniqueId:
          file.unique_id = std::string(field);
          break;
        case kEpochNumber:
          file.epoch_number = Cursor(field).varint64();
          break;
        default:
          if ((tag & kMustUnderstand) != 0) {
            throw DecodeError("new file field " + std::to_string(tag) + " is of a newer RocksDB");
          }
      }
    } catch (const Truncated&) {
      throw DecodeError("new file field " + std::to_string(tag) + " runs past its length");
    }
  }
  if (min_log_number) edit_.min_log_number_to_keep = min_log_number;
}

}  // namespace kumo::rocksdb
