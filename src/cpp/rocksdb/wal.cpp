#include "rocksdb/wal.hpp"

#include <algorithm>

#include "rocksdb/coding.hpp"
#include "rocksdb/filename.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::size_t kBatchHeader = 12;  // sequence u64, count u32
constexpr std::uint64_t kMaxSequence = (std::uint64_t{1} << 56) - 1;

// Adds one batch header to the sum; false where it cannot be one.
bool add_batch(const std::string& header, WalInfo& info) {
  if (header.size() < kBatchHeader) return false;
  const std::uint64_t sequence = load64(header.data());
  const std::uint32_t count = load32(header.data() + 8);
  if (sequence > kMaxSequence || count > kMaxSequence - sequence) return false;
  ++info.records;
  info.entries += count;
  if (!info.first_sequence) info.first_sequence = sequence;
  if (info.last_sequence && sequence > *info.last_sequence + 1) ++info.holes;
  // A batch without operations takes no sequence number.
  if (count != 0 && sequence + count - 1 >= info.last_sequence.value_or(0)) {
    info.last_sequence = sequence + count - 1;
    info.last_entries = count;
  }
  return true;
}

}  // namespace

WalInfo scan_wal(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  LogReader reader(file, classify_file(path.filename().string()).number);
  WalInfo info;
  info.file_size = file.size();
  std::string header;
  LogFragment fragment;
  while (reader.next(fragment)) {
    if (fragment.first) header.clear();
    header.append(fragment.data.substr(0, kBatchHeader - header.size()));
    if (!fragment.last) continue;
    if (reader.compressed()) {
      ++info.records;
    } else if (!add_batch(header, info)) {
      info.tail = LogTail::kDamaged;
      info.tail_offset = fragment.record_offset;
      info.tail_problem = "a record is no write batch";
      break;
    }
    info.valid_bytes = reader.valid_bytes();
  }
  if (info.tail != LogTail::kDamaged) {
    info.valid_bytes = reader.valid_bytes();
    info.tail = reader.tail();
    info.tail_offset = reader.tail_offset();
    info.tail_problem = reader.tail_problem();
  }
  info.compressed = reader.compressed();
  info.recycled = reader.recycled();
  info.predecessor = reader.predecessor();
  return info;
}

}  // namespace kumo::rocksdb
